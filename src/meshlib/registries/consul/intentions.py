"""Consul's answers about intentions as rules. Whatever isn't understood is taken against the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from meshlib.resources.documents import show
from meshlib.resources.intentions import HeaderPermission, Intention, Permission

__all__ = ["MAX_RULES", "default_allowed", "parse"]

MAX_RULES = 10_000
"""Intentions of one service, and permissions of one intention. Consul itself recommends far fewer."""

_HOME = ("", "default")
_PATHS = {"PathExact": "path_exact", "PathPrefix": "path_prefix", "PathRegex": "path_regex"}
_TEXTS = {"Exact": "exact", "Prefix": "prefix", "Suffix": "suffix", "Regex": "regex"}


class _Unknown(Exception):
    """A condition that can't be judged here."""


def parse(match_answer: bytes, service: str) -> tuple[Intention, ...]:
    """The rules for callers of a service, by precedence.

    An action that isn't known denies. A permission with a condition that isn't known (a JWT, for one) never allows; one
    that denies does so without that condition. Rules for callers of other partitions and peers are left out: their
    identities are of other trust domains or paths, and fit no rule.

    Args:
        match_answer: of `GET /v1/connect/intentions/match?by=destination&name=<service>`.
        service: the destination.

    Raises:
        ValueError: it isn't such an answer; the rules known before should stay.
    """
    try:
        answer = msgspec.json.decode(match_answer, type=dict[str, list[dict[str, Any]] | None])
    except msgspec.DecodeError as error:
        raise ValueError(f"Consul's answer about intentions for {service} can't be read: {error}") from error
    if service not in answer:
        raise ValueError(f"Consul's answer about intentions speaks of {show(list(answer))}, not of {service}")
    entries = answer[service] or []
    if len(entries) > MAX_RULES:
        raise ValueError(f"{service} has {len(entries)} intentions; at most {MAX_RULES} are taken")
    entries.sort(key=_precedence, reverse=True)
    return tuple(_rule(entry) for entry in entries if _of_this_mesh(entry))


def default_allowed(authorize_answer: bytes) -> bool | None:
    """Whether callers that no intention fits are let in; None when an intention decided about the one asked for.

    Args:
        authorize_answer: of `POST /v1/agent/connect/authorize` about a caller that doesn't exist.

    Raises:
        ValueError: it isn't such an answer.
    """
    try:
        answer = msgspec.json.decode(authorize_answer, type=_Authorized)
    except msgspec.DecodeError as error:
        raise ValueError(f"Consul's answer about an authorization can't be read: {error}") from error
    return None if answer.reason.startswith("Matched") else answer.authorized


class _Authorized(msgspec.Struct, rename="pascal"):
    authorized: bool
    reason: str = ""


def _precedence(entry: Mapping[str, Any]) -> int:
    found = entry.get("Precedence", 0)
    if type(found) is not int:
        raise ValueError(f"an intention's Precedence is {show(found)}; expected a whole number")
    return found


def _of_this_mesh(entry: Mapping[str, Any]) -> bool:
    return not entry.get("SourcePeer") and (entry.get("SourcePartition") or "") in _HOME


def _rule(entry: Mapping[str, Any]) -> Intention:
    source, namespace = entry.get("SourceName"), entry.get("SourceNS") or "default"
    if not isinstance(source, str) or not source or not isinstance(namespace, str):
        raise ValueError(f"an intention's SourceName is {show(source)}; expected a service's name or *")
    written = entry.get("Permissions") or []
    if not isinstance(written, list) or len(written) > MAX_RULES:
        raise ValueError(f"the Permissions of the intention for {source} are {show(written)}; expected a list")
    if not written:
        # A requirement of the whole intention, such as a JWT, that can't be judged here: then nothing is allowed.
        allowed = entry.get("Action") == "allow" and not entry.get("JWT")
        return Intention(source, "allow" if allowed else "deny", source_namespace=namespace)
    permissions = tuple(found for one in written if (found := _permission(one, entry)) is not None)
    return Intention(source, None, permissions, namespace)


def _permission(written: Any, entry: Mapping[str, Any]) -> Permission | None:
    """None for one that would allow on a condition that can't be judged."""
    if not isinstance(written, dict):
        raise ValueError(f"a permission is {show(written)}; expected a mapping")
    action: Literal["allow", "deny"] = "allow" if written.get("Action") == "allow" else "deny"
    unsure = bool(entry.get("JWT")) or any(value for key, value in written.items() if key not in ("Action", "HTTP"))
    http = written.get("HTTP") or {}
    if not isinstance(http, dict):
        raise ValueError(f"a permission's HTTP is {show(http)}; expected a mapping")
    fields: dict[str, Any] = {}
    for key, value in http.items():
        try:
            fields |= _condition(key, value) if value else {}
        except _Unknown:
            unsure = True
    return None if unsure and action == "allow" else Permission(action, **fields)


def _condition(key: str, value: Any) -> dict[str, Any]:
    if key in _PATHS and isinstance(value, str):
        return {_PATHS[key]: value}
    if key == "Methods" and isinstance(value, list):
        return {"methods": tuple(str(method).upper() for method in value)}
    if key == "Header" and isinstance(value, list):
        return {"headers": tuple(_header(condition) for condition in value)}
    raise _Unknown


def _header(written: Any) -> HeaderPermission:
    if not isinstance(written, dict) or not isinstance(written.get("Name"), str):
        raise _Unknown
    fields: dict[str, Any] = {}
    for key, value in written.items():
        if key in _TEXTS and isinstance(value, str):
            fields |= {_TEXTS[key]: value} if value else {}
        elif key in ("Invert", "IgnoreCase") and isinstance(value, bool):
            fields["invert" if key == "Invert" else "ignore_case"] = value
        elif key not in ("Name", "Present") and value:
            raise _Unknown
    return HeaderPermission(written["Name"], **fields)
