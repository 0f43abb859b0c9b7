"""Whom a connection of ours has reached: decided within the handshake, before a byte of a request is written."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from meshlib.identity.leaf import OF_A_CA, is_ca

__all__ = ["Expecting", "OutgoingContext", "OutgoingSocket", "explain", "mismatch"]

RECORD_BYTES = 16_384
"""What one TLS record carries (RFC 8446, 5.1)."""

HOSTNAME_MISMATCH = 62
"""X509_V_ERR_HOSTNAME_MISMATCH of OpenSSL: the certificate is good, and somebody else's."""


def mismatch(certificate: Mapping[str, Any], names: Iterable[str]) -> str:
    """What is wrong with a peer's certificate, "" if it has one of the names. Pure.

    A SPIFFE ID must be the only URI SAN, and equal (X509-SVID, 2 and 5.1). Other URIs, DNS names and addresses are
    looked for among the SANs of their own kind, whole and as they are written, as Istio does.

    Args:
        certificate: as `getpeercert()` gives it, its chain verified.
        names: who is expected.
    """
    alternatives: list[tuple[str, str]] = list(certificate.get("subjectAltName", ()))
    uris = [value for kind, value in alternatives if kind == "URI"]
    names = list(names)
    for name in names:
        if name.startswith("spiffe://"):
            found = uris == [name]
        elif "://" in name:
            found = name in uris
        elif (address := _address(name)) is not None:
            found = any(kind == "IP Address" and _address(value) == address for kind, value in alternatives)
        else:
            found = ("DNS", name) in alternatives
        if found:
            return ""
    came = _listed(uris or [value for _, value in alternatives])
    several = f" and has {len(uris)} URI SANs, where only one is allowed" if len(uris) > 1 else ""
    return f"its certificate is for {came}{several}, expected {_listed(names)}"


class OutgoingLink(ssl.SSLObject):
    """A connection of an event loop's. Its handshake fails unless the peer is who it should be."""

    names: tuple[str, ...] | None = None

    def do_handshake(self) -> None:
        """See `ssl.SSLObject`."""
        super().do_handshake()
        _check(self)

    def farewell(self) -> bool:
        """Whether the peer has said that no more will come; an end without that may be anybody's doing."""
        try:
            return not self.read(1)
        except ssl.SSLError:
            return False


class OutgoingSocket(ssl.SSLSocket):
    """A non-blocking connection in the words of a plain socket: what can't be done yet is a BlockingIOError."""

    names: tuple[str, ...] | None = None

    def do_handshake(self, block: bool = False) -> None:
        """See `ssl.SSLSocket`. Fails unless the peer is who it should be."""
        super().do_handshake(block)
        _check(self)

    def recv(self, buflen: int = RECORD_BYTES, flags: int = 0) -> bytes:
        """Up to a record, b"" after the peer's farewell.

        With room for a whole record OpenSSL holds nothing back, so that poll(2) on the socket tells the truth.
        """
        try:
            return self.read(max(buflen, RECORD_BYTES))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError(errno.EAGAIN, "no whole record is there") from None

    def send(self, data: Any, flags: int = 0) -> int:
        """Send up to a record.

        OpenSSL must be given the same bytes again until all are sent, and of a longer piece nobody knows how much has
        arrived.
        """
        try:
            return self.write(memoryview(data)[:RECORD_BYTES])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError(errno.EAGAIN, "the socket takes no more") from None

    def silent(self) -> bool:
        """Whether what has come is TLS's own business, as a session ticket is."""
        try:
            self.read(1)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError:
            return False
        return False


class OutgoingContext(ssl.SSLContext):
    """Makes connections that check whom they have reached.

    Attributes:
        names: who is accepted, see `PeerTls`; empty: whoever the chain, and `check_hostname`, let through; None:
            nobody, but by `Expecting`.
    """

    sslobject_class = OutgoingLink
    sslsocket_class = OutgoingSocket
    names: tuple[str, ...] | None = None


class Expecting:
    """A context for one kind of peer out of one that serves them all: a context of its own costs 1.5 ms and 30 kB.

    It stands for an `ssl.SSLContext` where connections are made.

    Args:
        context: what is shown and trusted.
        names: who is accepted.
    """

    __slots__ = ("context", "names")

    def __init__(self, context: OutgoingContext, names: tuple[str, ...]) -> None:
        self.context = context
        self.names = names

    def wrap_bio(self, *args: Any, **settings: Any) -> ssl.SSLObject:
        """See `ssl.SSLContext`."""
        link = self.context.wrap_bio(*args, **settings)
        assert isinstance(link, OutgoingLink)
        link.names = self.names
        return link

    def wrap_socket(
        self, sock: socket.socket, *, do_handshake_on_connect: bool = True, **settings: Any
    ) -> ssl.SSLSocket:
        """See `ssl.SSLContext`."""
        link = self.context.wrap_socket(sock, do_handshake_on_connect=False, **settings)
        assert isinstance(link, OutgoingSocket)
        link.names = self.names  # before the handshake, which checks them
        if do_handshake_on_connect:
            link.do_handshake()
        return link


def _check(link: OutgoingLink | OutgoingSocket) -> None:
    names = link.names
    if names is None and isinstance(link.context, OutgoingContext):
        names = link.context.names
    if names is None:
        problem = "its certificate can't be judged: nobody said whom it has to be for"
    else:
        problem = mismatch(link.getpeercert() or {}, names) if names else ""
        if not problem and any(name.startswith("spiffe://") for name in names) and is_ca(link.getpeercert(True) or b""):
            problem = OF_A_CA
    if problem:
        error = ssl.SSLCertVerificationError(1, problem)
        error.verify_code = HOSTNAME_MISMATCH
        error.verify_message = problem
        raise error


def explain(error: Exception) -> str:
    """Why a handshake failed, in words for an operator."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_message.startswith("its certificate"):
            return error.verify_message
        return f"its certificate was refused: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
        return "it hung up during the TLS handshake"
    if isinstance(error, ssl.SSLError):
        if error.reason in _NO_TLS:
            return "it doesn't speak TLS; where it is meant to be spoken to in the clear, say tls.mode DISABLE"
        reason = (error.reason or str(error)).lower().replace("_", " ")
        return f"the TLS handshake failed: {reason}"
    return f"the TLS handshake failed: {error}"


_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip())
    except ValueError:
        return None


def _listed(names: list[str]) -> str:
    shown = ", ".join(_shown(name) for name in names[:3])
    return (shown + (", …" if len(names) > 3 else "")) or "nobody by name"


def _shown(name: str) -> str:
    # As it is where it can't deceive; what an attacker wrote may hold a NUL or a line's end.
    return name if len(name) <= 200 and name.isascii() and name.isprintable() else repr(name[:200])
