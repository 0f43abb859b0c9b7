"""The parts of a discovery chain in the words of documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from meshlib.registries.consul.chaintypes import (
    HashPolicy,
    HeaderChanges,
    HeaderMatch,
    HTTPMatch,
    LoadBalancer,
    QueryMatch,
)
from meshlib.resources import Source, load
from meshlib.resources.destinations import MAX_RING
from meshlib.resources.documents import show
from meshlib.resources.units import parse_duration

__all__ = ["Inexpressible", "balancer_of", "duration_of", "faults_of", "headers_of", "match_of", "timeout_of"]

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
    if written.policy in _HASHED:
        return _hashed(written, warn)
    choices = written.least_request_config.choice_count
    if written.policy == "least_request" and choices not in (0, 2):
        warn(f"ChoiceCount {choices} is left out: least request compares two")
    if written.policy in _SIMPLE:
        return {"simple": _SIMPLE[written.policy]}
    if written.policy:
        warn(f"the load balancer {show(written.policy)} is not known")
    return {}


def _hashed(written: LoadBalancer, warn: Warn) -> dict[str, Any]:
    """A `consistentHash` by the first hash policy that can be said; RANDOM where there is none, as Envoy draws then."""
    keys = [key for policy in written.hash_policies if (key := _key(policy, warn))]
    if not keys:
        warn(f"{written.policy} has no HashPolicies to hash by: calls go to any endpoint")
        return {"simple": "RANDOM"}
    for key in keys[1:]:
        warn(f"the hash policy {' '.join(key)} is left out: one key is hashed, the first")
    algorithm: dict[str, Any] = {"maglev": {}}
    if written.policy == "ring_hash":
        size = written.ring_hash_config.minimum_ring_size
        if size > MAX_RING:
            warn(f"MinimumRingSize {size} is too large: {MAX_RING} is taken")
        algorithm = {"ringHash": {"minimumRingSize": min(size, MAX_RING)} if size > 0 else {}}
    return {"consistentHash": keys[0] | algorithm}


def _key(policy: HashPolicy, warn: Warn) -> dict[str, Any]:
    """The key of a `consistentHash`, {} for one that can't be said."""
    if policy.source_ip:
        return {"useSourceIp": True}
    key: dict[str, Any] = {}
    if policy.field == "header":
        key = {"httpHeaderName": policy.field_value}
    elif policy.field == "query_parameter":
        key = {"httpQueryParameterName": policy.field_value}
    elif policy.field == "cookie":
        key = {"httpCookie": {"name": policy.field_value} | _cookie(policy, warn)}
    if key and not (faults := _refused(key)):
        return key
    why = faults if key else "not known"
    warn(f"the hash policy {show(policy.field)} {show(policy.field_value)} is left out: {why}")
    return {}


def _cookie(policy: HashPolicy, warn: Warn) -> dict[str, str]:
    config = policy.cookie_config
    if config is None:
        return {}
    ttl = "0s" if config.session else duration_of("TTL", config.ttl, warn)
    return {name: value for name, value in (("ttl", ttl), ("path", config.path)) if value}


def _refused(key: dict[str, Any]) -> str:
    """What is wrong with a key by the rules for everybody's documents, "" for nothing."""
    policy = {"loadBalancer": {"consistentHash": key}}
    return _problems("DestinationRule", {"host": "one", "trafficPolicy": policy}, "")


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


def timeout_of(written: str | int, warn: Warn) -> str:
    """A RequestTimeout as `timeout`, "" where it says nothing. A negative one turns the timeout off, as in Consul."""
    off = written < 0 if isinstance(written, int) else written.startswith("-")
    return "0s" if off else duration_of("RequestTimeout", written, warn)


def faults_of(http: dict[str, Any]) -> str:
    """What is wrong with a route by the rules for everybody's documents, "" for nothing; subsets are taken on trust."""
    shares = [share | {"destination": {"host": share["destination"]["host"]}} for share in http["route"]]
    return _problems("VirtualService", {"hosts": ["*"], "http": [http | {"route": shares}]}, "spec.http[0].")


def _problems(kind: str, spec: dict[str, Any], place: str) -> str:
    document = {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": "one"}, "spec": spec}
    found = load([Source("", msgspec.json.encode(document))]).problems
    return "; ".join(f"{problem.path.removeprefix(place)} {problem.message}" for problem in found[:3])
