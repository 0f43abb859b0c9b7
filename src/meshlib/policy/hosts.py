"""The host a request is for, as it may be read. Names of headers are in lower case here."""

from __future__ import annotations

import re

from meshlib.policy.match import HeadView

__all__ = ["forbidding_hosts", "host_fault", "host_of"]

_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_AUTHORITY = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")


def host_of(head: HeadView) -> str:
    """The `Host` header in lower case, with its port where it has one; "" without."""
    for key, value in head.raw_headers:
        if key == b"host":
            return value.decode("latin-1").strip(" \t").lower()
    return ""


def forbidding_hosts(host: str) -> tuple[str, ...]:
    """Every reading of a host: as it came, without its port, and without the dot at its end."""
    if not host:
        return ()
    bare, colon, port = host.rpartition(":")
    if not colon or not (port.isdigit() or not port):
        bare = host
    if bare == host and not host.endswith("."):
        return (host,)
    return tuple(dict.fromkeys((host, bare, bare.rstrip("."))))


def host_fault(head: HeadView) -> str:
    """Why it can't be told which host is meant, "" when it can."""
    hosts = [value for key, value in head.raw_headers if key == b"host"]
    if len(hosts) > 1:
        return f"it has {len(hosts)} Host headers"
    host = hosts[0].strip(b" \t") if hosts else b""
    if host and _HOST.fullmatch(host) is None:
        return "its Host header is no host"
    target = head.raw_target
    if target[:1] in {b"/", b"*", b"?", b""}:
        return ""
    named = _AUTHORITY.match(target)
    if named is None or named[1].lower() != host.lower():
        return "its target names another host than its Host header"
    return ""
