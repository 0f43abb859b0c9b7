"""Who is at the other end of a request's connection, on each server that lets it be seen.

| server | how |
|---|---|
| any with `server_ssl_context()`, where the connection can be reached | what the handshake found |
| any with the ASGI TLS extension | `scope["extensions"]["tls"]` |
| uvicorn, gunicorn `-k asgi` | `receive` belongs to the connection |
| hypercorn | the task that serves a connection was begun in its handshake's context |
| gunicorn sync and gthread, Werkzeug | the socket in `environ` |

Where there is no way (granian's TLS is Rust's), every caller counts as one without identity.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import ssl
import sys
import weakref
from collections.abc import Mapping
from typing import Any

from meshlib.identity.handshakes import HANDSHAKEN, IncomingLink, IncomingSocket
from meshlib.identity.presented import presented_id
from meshlib.identity.spiffe import SpiffeId
from meshlib.inbound.admit import Peer

__all__ = ["asgi_peer", "wsgi_own", "wsgi_peer"]

log = logging.getLogger("meshlib.inbound")

PLAIN = Peer(None, False)
UNKNOWN = Peer(None, False, False)

SOCKETS = ("gunicorn.socket", "werkzeug.socket")


def asgi_peer(scope: Mapping[str, Any], receive: Any, trust_domain: str | None) -> tuple[Peer, str | None]:
    """The other end of an ASGI connection, and its IP address where it is known.

    Args:
        scope: of the request.
        receive: as the server gave it. Wrapped by another middleware, it leads nowhere.
        trust_domain: ours; None: we have no identity.
    """
    owner = getattr(receive, "__self__", None)
    transport = getattr(owner, "transport", None) or getattr(getattr(owner, "protocol", None), "transport", None)
    if transport is not None:
        secured = transport.get_extra_info("ssl_object")
        name = transport.get_extra_info("peername")
        address = name[0] if isinstance(name, tuple) else None
    else:
        secured = HANDSHAKEN.get() if _is_hypercorn(owner) else None
        client = scope.get("client")
        address = client[0] if client else None
    if type(secured) is IncomingLink:
        return Peer(secured.peer, secured.secure), address
    extensions = scope.get("extensions")
    told = extensions.get("tls") if extensions else None
    if told is not None:
        return _told(told, trust_domain), address
    if secured is not None:
        return _foreign(secured, trust_domain), address
    if transport is not None or (_is_hypercorn(owner) and scope["scheme"] in {"http", "ws"}):
        return PLAIN, address
    return UNKNOWN, address


def wsgi_peer(environ: Mapping[str, Any], trust_domain: str | None) -> tuple[Peer, str | None]:
    """The other end of a WSGI connection, and its IP address where it is known; see `asgi_peer`."""
    address = environ.get("REMOTE_ADDR") or None
    for name in SOCKETS:
        sock = environ.get(name)
        if sock is None:
            continue
        if isinstance(sock, IncomingSocket):
            return Peer(sock.peer, True), address
        return (_foreign(sock, trust_domain) if isinstance(sock, ssl.SSLSocket) else PLAIN), address
    return UNKNOWN, address


def wsgi_own(environ: Mapping[str, Any]) -> tuple[str, int | None]:
    """The address ("": not known) and the port (None: a Unix socket) of ours that a request came to.

    From the connection where it can be: on a Unix socket gunicorn takes what the caller wrote into `Host`.
    """
    sock = next((found for name in SOCKETS if isinstance(found := environ.get(name), socket.socket)), None)
    if sock is not None:
        with contextlib.suppress(OSError):
            own = sock.getsockname()
            return (own[0], own[1]) if isinstance(own, tuple) else ("", None)
    port = environ.get("SERVER_PORT", "")
    return "", int(port) if port.isdecimal() else None


def _is_hypercorn(owner: object) -> bool:
    """Whether `owner` may be what hypercorn receives from: its queue for one request, on asyncio or trio."""
    if owner is None or "hypercorn" not in sys.modules:
        return False
    kind = type(owner)
    return (kind.__module__, kind.__name__) in {("asyncio.queues", "Queue"), ("trio", "MemoryReceiveChannel")}


_seen: weakref.WeakKeyDictionary[object, Peer] = weakref.WeakKeyDictionary()


def _foreign(secured: Any, trust_domain: str | None) -> Peer:
    """Of a connection whose context isn't ours: what the server verified, by the roots it was given."""
    peer = _seen.get(secured)
    if peer is None:
        peer = _seen[secured] = Peer(_verified(secured.getpeercert() or {}, trust_domain), True)
    return peer


def _told(extension: Mapping[str, Any], trust_domain: str | None) -> Peer:
    chain = extension.get("client_cert_chain")
    leaf = next(iter(chain), None) if chain else None
    if not isinstance(leaf, str) or extension.get("client_cert_error") is not None or trust_domain is None:
        return Peer(None, True)
    return Peer(_read(leaf, trust_domain), True)


@functools.lru_cache(maxsize=256)
def _read(pem: str, trust_domain: str) -> SpiffeId | None:
    # Python reads a certificate in a handshake only; servers with the extension and no `ssl` need this package.
    try:
        from cryptography import x509
    except ImportError:
        log.error("the server tells of callers' certificates, and to read them the package cryptography is missing")
        return None
    try:
        names = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return None
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return _verified({"subjectAltName": [("URI", uri) for uri in uris]}, trust_domain)


def _verified(certificate: Mapping[str, Any], trust_domain: str | None) -> SpiffeId | None:
    if trust_domain is None:
        return None
    try:
        return presented_id(certificate, trust_domain)
    except ValueError:
        return None
