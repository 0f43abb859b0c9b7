"""What the tests of server contexts share: an identity turned by hand, and a client on memory BIOs."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any

from meshlib.identity.handshakes import IncomingLink
from meshlib.identity.incoming import ServerContext
from meshlib.identity.keeper import Identity
from meshlib.identity.loading import load_into
from meshlib.identity.material import IdentitySource, Material
from meshlib.identity.spiffe import parse
from tests.support.authority import Authority, Issued

US = "spiffe://mesh.test/ns/default/dc/dc1/svc/web"
CALLER = "spiffe://mesh.test/ns/default/dc/dc1/svc/front"


def _no_source() -> IdentitySource:
    raise AssertionError("nobody runs this identity")


class HandIdentity(Identity):
    """An identity whose material the test gives."""

    def __init__(self, material: Material | None = None) -> None:
        super().__init__(_no_source, "files:///run/identity")
        if material is not None:
            self.give(material)

    def give(self, material: Material) -> None:
        self._take(material)


def material(issued: Issued, *roots: Authority) -> Material:
    now = time.time()
    return Material(
        parse(US), issued.certificates, issued.key, b"".join(root.roots for root in roots), now - 60, now + 3600
    )


def client_context(roots: Authority, issued: Issued | None, **settings: Any) -> ssl.SSLContext:
    """A client that trusts `roots`, and shows `issued` when it is asked to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=roots.roots.decode())
    if issued is not None:
        load_into(context, issued.certificates, issued.key)
    for name, value in settings.items():
        setattr(context, name, value)
    return context


class Wire:
    """A connection in memory: the server's end of it, and a client that speaks TLS or plain text."""

    def __init__(self, context: ServerContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        wrapped: Any = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        assert isinstance(wrapped, IncomingLink)
        self.server = wrapped

    def handshake(
        self,
        client: ssl.SSLContext,
        session: ssl.SSLSession | None = None,
        between: Callable[[], None] = lambda: None,
        step: int | None = None,
    ) -> ssl.SSLObject:
        """Do both sides' handshake to the end; the server's error comes out.

        Args:
            client: the client's context.
            session: to resume.
            between: what happens when the server has got the first bytes.
            step: bytes the server gets at a time.
        """
        sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
        theirs = client.wrap_bio(received, sent, session=session)
        done: set[str] = set()
        for turn in range(6):
            _attempt(theirs.do_handshake, "client", done)
            flight = sent.read()
            for start in range(0, len(flight), step or len(flight) or 1):
                self.incoming.write(flight[start : start + (step or len(flight))])
                _attempt(self.server.do_handshake, "server", done)
                if turn == start == 0:
                    between()
            received.write(self.outgoing.read())
        assert done == {"client", "server"}
        self.theirs, self.sent, self.received = theirs, sent, received
        return theirs


def _attempt(handshake: Callable[[], None], name: str, done: set[str]) -> None:
    if name in done:
        return
    try:
        handshake()
    except ssl.SSLWantReadError:
        return
    done.add(name)
