"""A TCP server that says exactly what a test tells it to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ["Peer", "Script", "Server", "answering"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """The server's end of one connection; `number` counts connections from 1."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self._pending = b""

    def head(self) -> bytes:
        """Read a request head; b"" when the client closed."""
        return self._until(b"\r\n\r\n")

    def line(self) -> bytes:
        """Read a line; b"" when the client closed."""
        return self._until(b"\r\n")

    def _until(self, end: bytes) -> bytes:
        while end not in self._pending:
            data = self.sock.recv(65536)
            if not data:
                return b""
            self._pending += data
        found, _, self._pending = self._pending.partition(end)
        return found

    def exactly(self, count: int) -> bytes:
        """Read `count` bytes of a body, fewer if the client closes."""
        parts, left = [self._pending[:count]], count - len(self._pending[:count])
        self._pending = self._pending[count:]
        while left and (data := self.sock.recv(min(left, 65536))):
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    def rest(self) -> bytes:
        """Read until the client closes."""
        parts = [self._pending]
        try:
            while data := self.sock.recv(65536):
                parts.append(data)
        except ConnectionError:
            pass
        return b"".join(parts)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def close(self) -> None:
        """Say that no more will come, unless the client has hung up already, and close."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        self.sock.close()

    def reset(self) -> None:
        """Close so that the client sees a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Peer], None]


def answering(response: bytes = OK) -> Script:
    """A script that answers every request without a body with `response`."""

    def script(peer: Peer) -> None:
        while peer.head():
            peer.send(response)

    return script


class Server:
    """Runs a script for each connection, in a thread of its own. What goes wrong in a script fails the test."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.released = threading.Event()
        self._peers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._problems: list[Exception] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(5)
        for sock in self._peers:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(5)
        for sock in self._peers:
            sock.close()
        if exc is None and self._problems:
            raise self._problems[0]

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._peers.append(sock)
            self._start(self._serve, Peer(sock, self.connections))

    def _serve(self, peer: Peer) -> None:
        try:
            self._script(peer)
        except (ConnectionError, BrokenPipeError):
            pass
        except OSError as exc:
            if peer.sock.fileno() >= 0:
                self._problems.append(exc)
        except Exception as exc:  # noqa: BLE001 - raised again where the test can see it
            self._problems.append(exc)
        finally:
            peer.sock.close()
