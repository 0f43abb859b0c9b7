"""Servers that speak TLS as a test tells them, and identities to meet them with."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from meshlib.identity.loading import load_into
from meshlib.identity.outgoing import PeerContexts
from meshlib.identity.secured import Secured
from meshlib.plan.peers import PeerTls
from tests.support.authority import Authority, Issued
from tests.unit.identity.hands import CALLER, HandIdentity, material
from tests.wire.server import Peer, Script, answering

__all__ = ["ROOT", "SERVICE", "Endpoint", "contexts", "mutual", "secured", "server_context"]

ROOT = Authority()
SERVICE = "spiffe://mesh.test/ns/default/dc/dc1/svc/reviews"


def mutual(*names: str) -> PeerTls:
    """mTLS of the mesh with who has one of `names`."""
    return PeerTls("ISTIO_MUTUAL", "reviews.default.svc.cluster.local", names or (SERVICE,))


def contexts(*roots: Authority) -> PeerContexts:
    """Those of a process that has an identity, and trusts `roots`."""
    return PeerContexts(HandIdentity(material(ROOT.issue(CALLER), *(roots or (ROOT,)))))


def secured(peer: PeerTls | None = None) -> Callable[[], Secured]:
    """What a channel to the service is given."""
    made = contexts()
    return lambda: made.get(peer or mutual())


def server_context(issued: Issued | None = None, *, root: Authority = ROOT, **settings: Any) -> ssl.SSLContext:
    """A server's that wants a certificate of the mesh."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=root.roots.decode())
    issued = issued or root.issue(SERVICE)
    load_into(context, issued.certificates, issued.key)
    for name, value in settings.items():
        setattr(context, name, value)
    return context


class Endpoint:
    """A script behind TLS.

    Attributes:
        heard: application bytes of connections that came to nothing.
        refused: what went wrong in handshakes.
        callers: who called, by the certificates.
    """

    def __init__(self, context: ssl.SSLContext | None = None, script: Script | None = None) -> None:
        self.context = context or server_context()
        self._script = script or answering()
        self.heard: list[bytes] = []
        self.refused: list[OSError] = []
        self.callers: list[Any] = []

    def __call__(self, peer: Peer) -> None:
        """Serve a connection."""
        sock = self.context.wrap_socket(peer.sock, server_side=True, do_handshake_on_connect=False)
        peer.sock = sock
        try:
            sock.do_handshake()
        except OSError as error:
            self.refused.append(error)
            hear_out(sock)
            return
        self.callers.append(sock.getpeercert())
        try:
            self._script(Heard(sock, peer.number, self.heard))
        except ssl.SSLError as error:
            self.refused.append(error)


def hear_out(sock: socket.socket) -> None:
    """Read what still comes: closing with bytes unread would reset the connection, and take the alert along."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as raw:
        raw.settimeout(5)
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(65_536):
            pass


class Heard(Peer):
    """A peer that notes every byte the application is given."""

    def __init__(self, sock: Any, number: int, heard: list[bytes]) -> None:
        super().__init__(sock, number)
        self._heard = heard

    def _until(self, end: bytes) -> bytes:
        found = super()._until(end)
        self._heard.append(found + self._pending)
        return found
