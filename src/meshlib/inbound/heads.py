"""From what a server hands over to the head that rules see. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from meshlib.identity.spiffe import SpiffeId, words
from meshlib.inbound.admit import Peer
from meshlib.inbound.denials import Permit
from meshlib.policy.arriving import Arriving

__all__ = [
    "Headers",
    "Visitor",
    "asgi_head",
    "for_asgi",
    "for_wsgi",
    "lowered",
    "variable",
    "wsgi_head",
    "wsgi_headers",
]

Headers = Sequence[tuple[bytes, bytes]]

Own = tuple[str, int | None]
"""Address and port of ours; see `Arriving`."""

NOWHERE: Own = ("", None)

TARGETS = ("RAW_URI", "REQUEST_URI")
"""Where servers tell path and query as they came over the wire."""

BARE = ("CONTENT_TYPE", "CONTENT_LENGTH")

SAFE = "/:@!$&'()*+,;=~"
"""Of a path, what needs no escape (RFC 3986, 3.3)."""


class Visitor(NamedTuple):
    """Who makes a request.

    Attributes:
        peer: the other end of the connection.
        address: its IP address, None where it isn't known.
        caller: for whom the request is made, verified: `peer.id`, or whom a trusted hop forwards.
        remote: the IP address of that, as far as trusted hops tell; "" where it isn't known.
        believed: whether `x-forwarded-client-cert` may be seen by the application.
    """

    peer: Peer
    address: str | None
    caller: SpiffeId | None
    remote: str
    believed: bool


def lowered(headers: Headers) -> tuple[Headers, bytes]:
    """Headers with their names in lower case, and all these names in one, to look for a part of one quickly."""
    names = b"\n".join([name for name, _ in headers])
    if not names.islower():
        names = names.lower()
        headers = [(name.lower(), value) for name, value in headers]
    return headers, names


def asgi_head(scope: Mapping[str, Any], headers: Headers, visitor: Visitor, mount: str = "") -> Arriving:
    """The head of an ASGI request.

    Args:
        scope: of the request.
        headers: as `lowered` gives them.
        visitor: who makes it.
        mount: what the application behind us will say that it is mounted under, "": what `scope` says.
    """
    seen: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    query: bytes = scope.get("query_string") or b""
    target = raw or _quoted(seen)
    server = scope.get("server")
    return _head(
        scope.get("method") or "GET",  # a WebSocket's handshake
        b"%b?%b" % (target, query) if query else target,
        headers,
        seen,
        bool(raw),
        mount or scope.get("root_path") or "",
        visitor,
        (server[0], server[1]) if server else NOWHERE,
    )


def wsgi_head(environ: Mapping[str, Any], headers: Headers, visitor: Visitor, own: Own) -> Arriving:
    """The head of a WSGI request; `headers` as `wsgi_headers` gives them, `own` as `wsgi_own` does."""
    mount = utf8(environ.get("SCRIPT_NAME", ""))
    seen = mount + utf8(environ.get("PATH_INFO", ""))
    raw: str = environ.get(TARGETS[0]) or environ.get(TARGETS[1]) or ""
    if raw:
        target = raw.encode("latin-1", "replace")
    else:
        target = _quoted(seen)
        if query := environ.get("QUERY_STRING"):
            target += b"?" + query.encode("latin-1", "replace")
    return _head(environ["REQUEST_METHOD"], target, headers, seen, bool(raw), mount, visitor, own)


def _head(
    method: str, target: bytes, headers: Headers, seen: str, exact: bool, mount: str, visitor: Visitor, own: Own
) -> Arriving:
    caller = visitor.caller
    principal, namespace, account = words(caller) if caller is not None else ("", "", "")
    return Arriving(
        method,
        target,
        headers,  # type: ignore[arg-type]  # only read
        seen=seen,
        exact=exact,
        mount=mount,
        principal=principal,
        namespace=namespace,
        service_account=account,
        source_ip=visitor.address or "",
        remote_ip=visitor.remote,
        port=own[1],
        destination_ip=own[0],
    )


def wsgi_headers(environ: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    """The headers of a WSGI request, as far as it still has them: one of a name, names in lower case."""
    found = [
        (_name(key), value.encode("latin-1", "replace"))
        for key, value in environ.items()
        if key.startswith("HTTP_") and type(value) is str
    ]
    found += [(_name("HTTP_" + key), environ[key].encode("latin-1", "replace")) for key in BARE if environ.get(key)]
    return found


@functools.lru_cache(maxsize=1024)
def _name(variable: str) -> bytes:
    return variable[5:].lower().replace("_", "-").encode("latin-1", "replace")


def variable(name: bytes) -> str:
    """The CGI variable of a header."""
    bare = name.decode("latin-1").upper().replace("-", "_")
    return bare if bare in BARE else "HTTP_" + bare


def utf8(text: str) -> str:
    """What WSGI gives as Latin-1 (PEP 3333)."""
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


def _quoted(path: str) -> bytes:
    return quote(path, safe=SAFE).encode("ascii")


def for_asgi(headers: Headers, add: Headers, remove: set[bytes]) -> Headers:
    """The headers an ASGI application sees.

    One with underscores is the same variable to what reads headers as CGI does, so that it goes with its twin.

    Args:
        headers: of the request, names in lower case.
        add: instead of what came under these names.
        remove: names; those of `add` needn't be among them.
    """
    gone = remove.union([name for name, _ in add])
    return [*(pair for pair in headers if pair[0].replace(b"_", b"-") not in gone), *add]


def for_wsgi(environ: MutableMapping[str, Any], permit: Permit) -> None:
    """Have `environ` show what a WSGI application is to see: the headers (see `for_asgi`) and the query."""
    for name in permit.remove:
        environ.pop(variable(name), None)
    joined: dict[str, str] = {}
    for name, value in permit.add:
        key, text = variable(name), value.decode("latin-1")
        joined[key] = f"{joined[key]},{text}" if key in joined else text
    if joined:
        environ.update(joined)
    if permit.query is not None:
        query = environ["QUERY_STRING"] = permit.query.decode("latin-1")
        for key in TARGETS:
            if key in environ:
                environ[key] = environ[key].partition("?")[0] + (f"?{query}" if query else "")
