"""Small HTTP servers on the loopback interface that note every request and answer as a test says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

from tests.wire.server import Peer, Server

__all__ = ["Handler", "Seen", "Web", "answer", "half", "in_turn", "never", "reset"]


class Seen(NamedTuple):
    """A request as it came in.

    Attributes:
        peer: the connection; a handler may talk to it itself.
        turn: 1 for the first request this server sees.
    """

    peer: Peer
    turn: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Handler = Callable[[Seen], bytes | None]
"""Gives the response, or None when it has seen to the connection itself; then no further request is read from it."""


def answer(body: bytes = b"ok", status: str = "200 OK", **headers: str) -> bytes:
    """A response; underscores in the names of headers become hyphens."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def in_turn(*answers: bytes | Handler) -> Handler:
    """Answer the first request with the first of `answers`, and so on; the last one serves the rest."""

    def handler(seen: Seen) -> bytes | None:
        chosen = answers[min(seen.turn, len(answers)) - 1]
        return chosen if isinstance(chosen, bytes) else chosen(seen)

    return handler


def never(seen: Seen) -> None:
    """Say nothing until the client gives up."""
    seen.peer.rest()


def reset(seen: Seen) -> None:
    """Break the connection."""
    seen.peer.reset()


def half(seen: Seen) -> None:
    """Send the head and half of the body, no more."""
    seen.peer.send(answer(b"half" * 2)[:-4])
    seen.peer.rest()


class Web:
    """A server of HTTP/1.1, over TLS when it is given a context.

    Attributes:
        seen: every request, in order.
        refused: TLS handshakes that failed.
        ended: connections that are over.
        keeps_bodies: without it the bodies of requests are read and thrown away.
    """

    def __init__(self, handler: Handler | bytes, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.refused = 0
        self.ended = 0
        self.keeps_bodies = True
        self._handler = handler
        self._tls = tls
        self._lock = threading.Lock()
        self._stopped = False
        self._server = Server(self._script)
        self.port = self._server.port

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Be gone, before the test ends where it says so: connections break, and new ones are refused."""
        if not self._stopped:
            self._stopped = True
            self._server.__exit__(None, None, None)

    @property
    def connections(self) -> int:
        """How many were opened."""
        return self._server.connections

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [seen.target for seen in self.seen]

    def answer_with(self, handler: Handler | bytes) -> None:
        """Answer otherwise from now on."""
        self._handler = handler

    def _script(self, peer: Peer) -> None:
        try:
            self._serve(peer)
        finally:
            peer.sock.close()
            with self._lock:
                self.ended += 1

    def _serve(self, peer: Peer) -> None:
        if self._tls is not None:
            try:
                peer.sock = self._tls.wrap_socket(peer.sock, server_side=True)
            except (ssl.SSLError, ConnectionError):
                self.refused += 1
                return
        while head := peer.head():
            seen = self._note(peer, head)
            handler = self._handler
            response = handler if isinstance(handler, bytes) else handler(seen)
            if response is None:
                return
            peer.send(response)

    def _note(self, peer: Peer, head: bytes) -> Seen:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        coming = _chunks(peer) if "transfer-encoding" in headers else _pieces(peer, headers)
        body = b"".join(piece for piece in coming if self.keeps_bodies)
        with self._lock:
            seen = Seen(peer, len(self.seen) + 1, method, target, headers, body)
            self.seen.append(seen)
        return seen


def _chunks(peer: Peer) -> Iterator[bytes]:
    while size := int(peer.line(), 16):
        yield peer.exactly(size)
        peer.exactly(2)
    peer.exactly(2)


def _pieces(peer: Peer, headers: dict[str, str]) -> Iterator[bytes]:
    left = int(headers.get("content-length", "0"))
    while left and (piece := peer.exactly(min(left, 65536))):
        left -= len(piece)
        yield piece
