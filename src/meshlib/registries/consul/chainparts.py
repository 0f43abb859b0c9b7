"""The parts of a discovery chain in the words of documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from meshlib.registries.consul.chaintypes import HeaderChanges, HeaderMatch, HTTPMatch, LoadBalancer, QueryMatch
from meshlib.resources import Source, load
from meshlib.resources.documents import show
from meshlib.resources.units import parse_duration

__all__ = ["Inexpressible", "balancer_of", "duration_of", "faults_of", "headers_of", "match_of"]

StringMatch = dict[str, str]
Warn = Callable[[str], object]

_SIMPLE = {"random": "RANDOM", "round_robin": "ROUND_ROBIN", "least_request": "LEAST_REQUEST"}
_HASHED = ("ring_hash", "maglev")


class Inexpressible(Exception):
    """No VirtualService can say this; the text says what."""


def match_of(written: HTTPMatch) -> dict[str, Any]:
    """An HTTPMatchRequest, {} for a route that takes everything.

    Raises:
        Inexpressible: two different conditions on one header or query parameter.
    """
    match: dict[str, Any] = {}
    if uri := _uri(written):
        match["uri"] = uri
    if written.methods:
        names = [method.upper() for method in written.methods]
        match["method"] = {"exact": names[0]} if len(names) == 1 else {"regex": "|".join(map(re.escape, names))}
    fields = {
        "headers": _joined("header", ((one.name.lower(), _there(one)) for one in written.header)),
        "withoutHeaders": _joined("header", _inverted(written.header)),
        "queryParams": _joined("query parameter", ((one.name, _query(one)) for one in written.query_param)),
    }
    return match | {name: conditions for name, conditions in fields.items() if conditions}


def _uri(written: HTTPMatch) -> StringMatch:
    exact, prefix, regex = written.path_exact, written.path_prefix, written.path_regex
    if written.case_insensitive and (exact or prefix or regex):
        # There is no ignoring of case in a VirtualService that is applied here, but in an expression.
        return {"regex": "(?i)" + (re.escape(exact) if exact else f"{re.escape(prefix)}.*" if prefix else regex)}
    if exact:
        return {"exact": exact}
    if regex:
        return {"regex": regex}
    return {"prefix": prefix} if prefix and prefix != "/" else {}


def _there(written: HeaderMatch) -> StringMatch | None:
    """What the header must match. An inverted condition on a value wants the header to be there, as in Envoy."""
    if not written.invert:
        return _value(written)
    return {} if _value(written) else None


def _inverted(written: Iterable[HeaderMatch]) -> Iterator[tuple[str, StringMatch | None]]:
    return ((one.name.lower(), _value(one)) for one in written if one.invert)


def _value(written: HeaderMatch) -> StringMatch:
    """{} wants the header to be there."""
    for name in ("exact", "prefix", "regex"):
        if text := getattr(written, name):
            return {name: text}
    if written.suffix:
        return {"regex": f".*{re.escape(written.suffix)}"}
    return {"regex": f".*{re.escape(written.contains)}.*"} if written.contains else {}


def _query(written: QueryMatch) -> StringMatch:
    if written.exact:
        return {"exact": written.exact}
    return {"regex": written.regex or ".*"}


def _joined(what: str, conditions: Iterable[tuple[str, StringMatch | None]]) -> dict[str, StringMatch]:
    """By name; that a header is there goes without saying beside a condition on its value."""
    found: dict[str, StringMatch] = {}
    for name, condition in conditions:
        if condition is None:
            continue
        if condition and found.get(name) not in (None, {}, condition):
            raise Inexpressible(f"two conditions on the {what} {name}")
        found[name] = condition or found.get(name, {})
    return found


def headers_of(request: HeaderChanges, response: HeaderChanges) -> dict[str, Any]:
    """The `headers` of a route or a share, {} for none."""
    sides = {"request": request, "response": response}
    return {side: msgspec.json.decode(_plain(changes)) for side, changes in sides.items() if changes != HeaderChanges()}


def _plain(changes: HeaderChanges) -> bytes:
    return msgspec.json.encode({"set": changes.set, "add": changes.add, "remove": changes.remove})


def balancer_of(written: LoadBalancer, warn: Warn) -> dict[str, Any]:
    """A `loadBalancer`, {} where nothing is said."""
    if written.policy in _SIMPLE:
        return {"simple": _SIMPLE[written.policy]}
    if written.policy in _HASHED:
        # Not applied yet; written all the same, so that the capability report says so.
        return {"consistentHash": {"maglev": {}} if written.policy == "maglev" else {"ringHash": {}}}
    if written.policy:
        warn(f"the load balancer {show(written.policy)} is not supported yet")
    return {}


def duration_of(what: str, written: str | int, warn: Warn) -> str:
    """As documents write it, "" where it says nothing; a number is nanoseconds."""
    text = f"{written / 1e6:g}ms" if isinstance(written, int) else written
    if text in ("", "0s", "0ms"):
        return ""
    try:
        return f"{parse_duration(text) * 1000:.0f}ms"
    except ValueError as error:
        warn(f"{what} {show(written)} is left out: it {error}")
        return ""


def faults_of(http: dict[str, Any]) -> str:
    """What is wrong with a route by the rules for everybody's documents, "" for nothing; subsets are taken on trust."""
    shares = [share | {"destination": {"host": share["destination"]["host"]}} for share in http["route"]]
    spec = {"hosts": ["*"], "http": [http | {"route": shares}]}
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "one"},
        "spec": spec,
    }
    found = load([Source("", msgspec.json.encode(document))]).problems
    return "; ".join(f"{problem.path.removeprefix('spec.http[0].')} {problem.message}" for problem in found[:3])
