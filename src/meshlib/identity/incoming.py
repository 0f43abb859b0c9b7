"""The server's TLS context: what it shows, whom it trusts and what it takes follow the mesh as connections come in."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, cast

from meshlib.errors import IdentityError
from meshlib.identity.handshakes import TLS_HANDSHAKE, IncomingLink, IncomingPlain, IncomingSocket, Refused, first_byte
from meshlib.identity.keeper import Identity
from meshlib.identity.leaf import OF_A_CA, is_ca
from meshlib.identity.loading import load_into
from meshlib.identity.material import Material
from meshlib.identity.presented import expired, presented_id
from meshlib.identity.sparing import Sparing
from meshlib.identity.spiffe import SpiffeId
from meshlib.plan.inbound import Inbound, Mode

__all__ = ["FIRST_WAIT", "ServerContext", "Serving"]

log = logging.getLogger("meshlib.identity")

FIRST_WAIT = 5.0
"""Seconds the first certificate is waited for."""

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of 1.3 are all good. Every one with a key of its own for each connection, so that a certificate may
change between two steps of a handshake."""

ALPN = ("http/1.1",)


class ServerContext(ssl.SSLContext):
    """An `ssl.SSLContext` for any server on Python's `ssl`. What it wraps, it wraps by what is in force at that moment.

    The certificate is the mesh's identity. A client's certificate must be signed by its trust bundle and have one URI
    SAN, a SPIFFE ID of our trust domain; without one, or in plain text, a client comes in as PeerAuthentication allows.
    A refused connection is closed within the handshake, and the log says why.

    Args:
        identity: who we are.
        inbound: gives what the plan says of requests coming in.
    """

    def __new__(cls, *_: object) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, identity: Identity, inbound: Callable[[], Inbound]) -> None:
        self.serving: Serving | None = None
        self.identity = identity
        self._inbound = inbound
        self._alpn: tuple[str, ...] = ALPN
        self._refusals = Sparing(log)
        identity.follow(self._prepare)

    def _prepare(self, material: Material) -> Callable[[], None]:
        made = Serving(material, self._alpn, self._inbound, self._refusals)

        def commit() -> None:
            self.serving = made

        return commit

    def wait(self, seconds: float = FIRST_WAIT) -> None:
        """Wait for the first certificate.

        Raises:
            IdentityError: there is none.
        """
        if self.serving is None:
            self.identity.settled.wait(seconds)
        self._now()

    def _now(self) -> Serving:
        serving = self.serving
        if serving is None:
            error = self.identity.error
            if error is not None:
                raise error
            raise IdentityError(self.identity.url, "there is no certificate yet", "`meshlib status` says what is wrong")
        return serving

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """See `ssl.SSLContext`; holds for connections from now on."""
        self._alpn = tuple(alpn_protocols)
        if self.serving is not None:
            self.serving.set_alpn_protocols(self._alpn)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """See `ssl.SSLContext`. What comes back stands for an `SSLObject` and may turn out to be plain."""
        self._only_serve(server_side)
        return cast("ssl.SSLObject", IncomingLink(self._now, incoming, outgoing))

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """See `ssl.SSLContext`. The handshake is done at once; what comes back may be plain."""
        self._only_serve(server_side)
        try:
            sock.getpeername()
        except OSError:  # a listening socket, whose `accept` comes back to us
            return super().wrap_socket(sock, server_side=True, suppress_ragged_eofs=suppress_ragged_eofs)
        port = _port(sock)
        # On a non-blocking socket there is nothing to look at yet: those connections are TLS or nothing.
        if sock.gettimeout() != 0.0 and first_byte(sock) != TLS_HANDSHAKE:
            self._now().take_plain(port)
            return cast("ssl.SSLSocket", IncomingPlain.of(sock))
        serving = self._now()
        serving.take_tls(port)
        wrapped = serving.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=suppress_ragged_eofs
        )
        assert isinstance(wrapped, IncomingSocket)
        try:
            wrapped.admit(self._now, serving, port)
        except BaseException:
            wrapped.close()
            raise
        return wrapped

    def _only_serve(self, server_side: bool) -> None:
        if not server_side:
            raise ValueError("this context is a server's; clients in the mesh need none, see Mesh.transport")


class Serving(ssl.SSLContext):
    """The context of one material; another one takes its place when the material changes.

    A session of the one before can't be resumed: there are no tickets, and session IDs are kept by each context for
    itself.

    Args:
        material: what is shown, and whom to trust.
        alpn: protocols offered.
        inbound: gives what the plan says.
        refusals: where refusals are told.

    Raises:
        ValueError, OSError: the material is of no use; see `Identity.follow`.
    """

    sslsocket_class = IncomingSocket

    def __new__(cls, *_: object) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(
        self, material: Material, alpn: Sequence[str], inbound: Callable[[], Inbound], refusals: Sparing
    ) -> None:
        self.trust_domain = material.id.trust_domain
        self._inbound = inbound
        self._refusals = refusals
        self.minimum_version = ssl.TLSVersion.TLSv1_2  # Istio's own
        self.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        self.num_tickets = 0
        self.set_ciphers(CIPHERS)
        self.set_alpn_protocols(alpn)
        self.verify_mode = ssl.CERT_OPTIONAL  # the mode may change, and with the port: `shake` asks for it
        self.load_verify_locations(cadata=material.roots.decode("ascii"))
        load_into(self, material.certificates, material.key)

    def take_tls(self, port: int | None) -> None:
        """A connection begins TLS on `port`; None: a port nobody told.

        Raises:
            Refused: PeerAuthentication says DISABLE.
        """
        if self._modes(port) == {"DISABLE"}:
            raise self._refuse("it is TLS, and PeerAuthentication says DISABLE here: plain text only")

    def take_plain(self, port: int | None) -> None:
        """A plain connection came on `port`.

        Raises:
            Refused: PeerAuthentication says STRICT.
        """
        if self._modes(port) == {"STRICT"}:
            raise self._refuse(
                "it is plain text, and PeerAuthentication says STRICT: callers need an identity (MESHLIB_IDENTITY), or "
                "a PeerAuthentication with mode PERMISSIVE for the time being"
            )

    def shake(
        self, tls: ssl.SSLObject | ssl.SSLSocket, handshake: Callable[[], None], began: Serving, port: int | None
    ) -> SpiffeId | None:
        """Go one step of a handshake; to be called on what is in force at that moment.

        Args:
            tls: the connection.
            handshake: does the step.
            began: what was in force at the first step.
            port: it came to.

        Returns:
            The caller's identity when the handshake is done, None when it showed no certificate.

        Raises:
            Refused: it isn't let in.
            ssl.SSLError: the handshake isn't done yet, or what came is no TLS.
        """
        if tls.context is not self:
            tls.context = self  # a certificate that comes from now on is verified by the roots in force now
        try:
            handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLCertVerificationError as error:
            raise self._refuse(f"its certificate isn't good: {error.verify_message}") from error
        return self._identified(tls, began, port)

    def _identified(self, tls: ssl.SSLObject | ssl.SSLSocket, began: Serving, port: int | None) -> SpiffeId | None:
        certificate = tls.getpeercert()
        if not certificate:
            if self._modes(port) == {"STRICT"}:
                raise self._refuse("it shows no certificate, and PeerAuthentication says STRICT")
            return None
        # OpenSSL doesn't verify the certificate of a resumed session again.
        if tls.session_reused and (began is not self or expired(certificate, time.time())):
            raise self._refuse("it resumes a session whose certificate holds no longer")
        if is_ca(tls.getpeercert(True) or b""):
            raise self._refuse(OF_A_CA)
        try:
            return presented_id(cast("dict[str, Any]", certificate), self.trust_domain)
        except ValueError as error:
            raise self._refuse(str(error)) from None

    def _modes(self, port: int | None) -> set[Mode]:
        """What may be meant: on a port nobody told the modes of all, and the middleware, which knows it, decides."""
        inbound = self._inbound()
        return {inbound.mode, *inbound.ports.values()} if port is None else {inbound.mode_of(port)}

    def _refuse(self, reason: str) -> Refused:
        self._refusals.warning(time.monotonic(), reason, "a connection was refused: %s", reason)
        return Refused(reason)


def _port(sock: socket.socket) -> int | None:
    """The port of ours a connection came to; None on a Unix socket."""
    name = sock.getsockname()
    return name[1] if isinstance(name, tuple) else None
