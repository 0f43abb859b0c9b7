"""What the values of an AuthorizationPolicy may be: identities, addresses, ports, paths, attributes of a request."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

from meshlib.resources.documents import show
from meshlib.resources.fields import nearest
from meshlib.resources.shapes import TOKEN

__all__ = ["ACCOUNTS_AT_MOST", "key_fault", "value_check"]

ACCOUNTS_AT_MOST = 16
"""Values of `serviceAccounts`; Istio's bound."""

_VALUE_AT_MOST = 2048
_ACCOUNT_AT_MOST = 320
_PREFIX = re.compile(r"/[0-9]{1,3}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
# The characters of a path's segment (RFC 3986, pchar), as Istio takes them beside templates.
_SEGMENT = re.compile(r"[a-zA-Z0-9._~%!$&'()+,;:@=-]+")
_TEMPLATES = ("{*}", "{**}")
_IN_BRACKETS = re.compile(r"([a-z.]+)((?:\[[^\[\]]{1,256}\]){1,16})")
_BRACKETED = ("request.headers", "request.auth.claims")
_GONE = {
    "destination.namespace": "is said by metadata.namespace: the document holds in its own namespace",
    "destination.labels": "is said by selector.matchLabels",
    "destination.name": "is not Istio's any more; write selector.matchLabels",
    "destination.user": "is not Istio's any more; write selector.matchLabels",
}

ValueCheck = Callable[[str], str | None]


def text_fault(value: str) -> str | None:
    """What is wrong with a text that is compared, None when nothing is."""
    if not value:
        return 'is empty; write "*" for any value, or remove it'
    if len(value) > _VALUE_AT_MOST:
        return f"has {len(value)} characters; at most {_VALUE_AT_MOST} are allowed"
    if _CONTROLS.search(value):
        return (
            f"{show(value)} has a line break or another control character, which nothing it is compared with may hold"
        )
    return None


def _principal(value: str) -> str | None:
    if value.startswith("spiffe:"):
        return f"{show(value)} would never match: principals are written without spiffe://"
    return text_fault(value)


def _account(value: str) -> str | None:
    name = value.rpartition("/")[2]
    if not name or value.startswith("/") or value.count("/") > 1 or "*" in value or len(value) > _ACCOUNT_AT_MOST:
        return f'{show(value)} is not a service account: "name" or "namespace/name" expected, without *'
    return text_fault(value)


def _block(value: str) -> str | None:
    address, slash, bits = value.partition("/")
    try:
        version = ipaddress.ip_address(address).version
        if (slash and not _PREFIX.fullmatch(f"/{bits}")) or "%" in value or len(value) > _ACCOUNT_AT_MOST:
            raise ValueError
        if slash and int(bits) > (32 if version == 4 else 128):
            raise ValueError
    except ValueError:
        return f'{show(value)} is not an address or a CIDR block, as in "10.1.2.3" or "10.1.0.0/16"'
    return None


def _port(value: str) -> str | None:
    if _PORT.fullmatch(value) and int(value) <= 65535:
        return None
    return f"{show(value)} is not a port: a number from 1 to 65535 expected"


def _path(value: str) -> str | None:
    fault = text_fault(value)
    if fault is not None:
        return fault
    if value[0] not in "/*":
        return f'{show(value)} would never match: a path begins with "/"'
    if "?" in value:
        return f"{show(value)} would never match: paths are compared without the query; remove it"
    return _template(value) if "{" in value or "}" in value else None


def _template(value: str) -> str | None:
    """By Envoy's rules for URI templates, as Istio narrows them."""
    segments = value.strip("/").split("/")
    known = [segment for segment in segments if segment in _TEMPLATES]
    if any(("{" in segment or "}" in segment) and segment not in _TEMPLATES for segment in segments):
        return f"{show(value)} has a brace outside of {{*}} and {{**}}, which are whole segments"
    if "{**}" in known[:-1]:
        return f"{show(value)} goes on with a template after {{**}}, which must be the last"
    literals = [segment for segment in segments if segment not in _TEMPLATES]
    if value[0] != "/" or not all(_SEGMENT.fullmatch(segment) for segment in literals):
        return f"{show(value)} has {{*}} or {{**}} beside what no segment of a path may hold (a *, for example)"
    return None


_CHECKS: Mapping[str, ValueCheck] = {
    "principals": _principal,
    "serviceAccounts": _account,
    "ipBlocks": _block,
    "remoteIpBlocks": _block,
    "ports": _port,
    "paths": _path,
    "source.ip": _block,
    "remote.ip": _block,
    "destination.ip": _block,
    "destination.port": _port,
    "source.principal": _principal,
    "source.serviceAccount": _account,
}
_TEXTS = (
    "source.namespace", "request.auth.principal", "request.auth.audiences", "request.auth.presenter", "connection.sni",
)  # fmt: skip
_KEYS = (*_TEXTS, *(key for key in _CHECKS if "." in key))


def value_check(name: str) -> ValueCheck:
    """What says of a value of a field (`paths`, `notPaths`) or of the attribute `name` what is wrong with it."""
    positive = name[3:4].lower() + name[4:] if name.startswith("not") else name
    return _CHECKS.get(positive, text_fault)


def key_fault(key: str) -> str | None:
    """What is wrong with the key of a condition, None when nothing is."""
    if key in _KEYS:
        return None
    if (found := _IN_BRACKETS.fullmatch(key)) is not None and found[1] in _BRACKETED:
        if found[1] == "request.headers" and not TOKEN.fullmatch(found[2][1:-1]):
            return f"{show(key)} names no header; write one, as in request.headers[x-team]"
        return None
    name = key.partition("[")[0]
    if name in _BRACKETED:
        return f"{show(key)} lacks its name in brackets, as in {name}[x]"
    if name in _GONE:
        return f"{show(key)} {_GONE[name]}"
    if name.startswith(("experimental.", "request.experimental.")):
        return f"{show(key)} is an attribute of Envoy's own, which a library can't see; remove the condition"
    every = [*_KEYS, *(f"{one}[…]" for one in _BRACKETED)]
    return f"{show(key)} is not an attribute{nearest(key, _KEYS)}; known are {', '.join(sorted(every))}"
