"""HTTP/1.1 on a non-blocking socket, as generators that say what they wait for.

`blocking` waits with `poll`, `portable` with whatever event loop runs; all else they share is here.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Generator, Sequence
from typing import Any

from meshlib.call.effects import Failure
from meshlib.identity.secured import Link
from meshlib.identity.verifying import OutgoingSocket
from meshlib.wire.clock import soonest
from meshlib.wire.encode import Encoded
from meshlib.wire.http1 import Exchange, ResponseParser
from meshlib.wire.message import Timing, WireError
from meshlib.wire.pool import Pool

__all__ = ["READABLE", "WRITABLE", "Address", "SocketConnection", "Waits", "dial", "numeric"]

READABLE = select.POLLIN
WRITABLE = select.POLLOUT
RECV_BYTES = 65_536
"""Bytes asked of the kernel at a time."""
SMALL_BODY = 65_536
"""Bytes of a request body up to which it is joined to its head: a copy is cheaper than a second system call."""

Address = tuple[Any, Any, int, str, Any]
Waits = Generator[tuple[socket.socket, int, float | None], int, None]
"""Yields a socket, the events to wait for and a monotonic instant; is sent the events that came, 0 for none in time."""


def numeric(host: str, port: int) -> Sequence[Address] | None:
    """The address of a numeric `host`, which needs no resolver; None for a name."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        return None


def dial(
    host: str, port: int, addresses: Sequence[Address], deadline: float | None
) -> Generator[tuple[socket.socket, int, float | None], int, socket.socket]:
    """Connect to the first of `addresses` that answers.

    Raises:
        WireError: CONNECT if all refuse, CONNECT_TIMEOUT if the deadline passes.
    """
    problem: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(address)
            if code == errno.EINPROGRESS:
                if not (yield sock, WRITABLE, deadline):
                    raise WireError(Failure.CONNECT_TIMEOUT, f"{host}:{port}: no connection within the time for it")
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                return sock
            problem = OSError(code, os.strerror(code))
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise WireError(Failure.CONNECT, f"{host}:{port}: {problem or 'no address'}") from problem


class SocketConnection:
    """One connection to an endpoint; one exchange at a time.

    Args:
        sock: a connected, non-blocking socket.
        peer: `host:port` of the endpoint, for messages.
        pool: where it belongs.
        link: how it was secured, and then `sock` is an `OutgoingSocket`; None: plain.
    """

    __slots__ = (
        "_closed",
        "_exchange",
        "_link",
        "_parser",
        "_pool",
        "_sock",
        "_written",
        "idle_since",
        "peer",
        "requests",
    )

    def __init__(self, sock: socket.socket, peer: str, pool: Pool[Any], link: Link | None = None) -> None:
        self._sock = sock
        self._link = link
        self.peer = peer
        self._pool = pool
        self._parser = ResponseParser()
        self._exchange: Exchange | None = None
        self._closed = False
        self._written = False
        self.requests = 0
        self.idle_since = 0.0

    @property
    def sock(self) -> socket.socket:
        """The socket itself."""
        return self._sock

    def usable(self) -> bool:
        """Whether the peer has neither hung up nor spoken out of turn."""
        if self._link is not None:
            return not self._closed and self._link.fit(time.monotonic()) and (not self._readable() or self._silent())
        return not self._closed and not self._readable()

    def close(self) -> None:
        """Close at once."""
        if self._closed:
            return
        self._closed = True
        self._exchange = None
        self._parser.close()
        self._sock.close()
        self._pool.gone(self)

    def abandon(self, exchange: Exchange) -> None:
        """Close the connection if it is still at `exchange`."""
        if self._exchange is exchange:
            self.close()

    def owns(self, exchange: Exchange) -> bool:
        """Whether the connection is still at `exchange`."""
        return self._exchange is exchange

    def begin(self, encoded: Encoded) -> Exchange:
        """Turn to a request; nothing is written yet."""
        exchange = Exchange(encoded, reused=self.requests > 0, secured=self._link is not None)
        self.requests += 1
        self._parser.expect(exchange)
        self._exchange = exchange
        self._written = False
        return exchange

    def put(self, exchange: Exchange, data: bytes | memoryview, timing: Timing, *, last: bool = False) -> Waits:
        """Write `data`, the last of the request or not, unless an answer comes first."""
        if not last and self._readable():
            self._receive(exchange)
        self._written = False
        view = memoryview(data)
        while view and not exchange.settled:
            try:
                count = self._sock.send(view)
            except BlockingIOError:
                ready = yield self._sock, READABLE | WRITABLE, soonest(timing.write, timing.head_by)
                if not ready:
                    self._break(exchange, Failure.TIMEOUT, "the time to send the request ran out")
                elif ready & ~WRITABLE:
                    self._receive(exchange)
            except OSError as exc:
                # A server that answers early and hangs up may have left its answer for us to read.
                self._receive_head(exchange)
                if not exchange.started:
                    self._break(exchange, Failure.RESET, f"the connection broke: {exc}", exc)
            else:
                exchange.sent = True
                view = view[count:]
        self._written = last and not view

    def head(self, exchange: Exchange, timing: Timing) -> Waits:
        """Wait for the response head; raises WireError if it doesn't come."""
        while not exchange.settled:
            if (yield self._sock, READABLE, soonest(timing.read, timing.head_by)):
                self._receive(exchange)
            else:
                self._break(exchange, Failure.TIMEOUT, "the time to wait for the response head ran out")
        if exchange.failure is not None:
            raise exchange.error(self.peer)

    def more(self, exchange: Exchange, timing: Timing) -> Waits:
        """Wait for a piece of the response body or its end; raises WireError if neither comes."""
        body_by = timing.body_by
        if body_by is not None and not exchange.complete and time.monotonic() >= body_by:
            self._break(exchange, Failure.TIMEOUT, "the time for the response body ran out")
        while not (exchange.chunks or exchange.complete or exchange.failure is not None):
            if (yield self._sock, READABLE, soonest(timing.read, body_by)):
                self._receive(exchange)
            else:
                self._break(exchange, Failure.TIMEOUT, "the time to wait for the response body ran out")
        if exchange.failure is not None and not exchange.chunks:
            raise exchange.error(self.peer)

    def raw_read(self, exchange: Exchange, deadline: float | None) -> Waits:
        """On a connection handed over: wait for bytes or the end."""
        while not (exchange.chunks or exchange.complete):
            self._check(exchange)
            if not (yield self._sock, READABLE, deadline):
                raise self._late("read")
            self._check(exchange)
            self._receive(exchange)

    def raw_write(self, exchange: Exchange, data: bytes, deadline: float | None) -> Waits:
        """On a connection handed over: write all of `data`."""
        view = memoryview(data)
        while view:
            self._check(exchange)
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                if not (yield self._sock, WRITABLE, deadline):
                    raise self._late("write") from None
            except OSError as exc:
                self._break(exchange, Failure.RESET, f"the connection broke: {exc}", exc)

    def extra_info(self, name: str) -> Any:
        """What httpcore's network streams tell: `socket`, `client_addr`, `server_addr`, `ssl_object`, or None."""
        match name:
            case "socket":
                return self._sock
            case "client_addr":
                return self._sock.getsockname()
            case "server_addr":
                return self._sock.getpeername()
            case "ssl_object" if self._link is not None:
                return self._sock
        return None

    def _check(self, exchange: Exchange) -> None:
        if self._exchange is not exchange:
            exchange.fail(Failure.RESET, "the connection was closed")
            raise exchange.error(self.peer)

    def _late(self, purpose: str) -> WireError:
        return WireError(Failure.TIMEOUT, f"{self.peer}: the time to {purpose} ran out", sent=True, received=True)

    def _readable(self) -> bool:
        poll = select.poll()
        poll.register(self._sock, READABLE)
        return bool(poll.poll(0))

    def _silent(self) -> bool:
        return isinstance(self._sock, OutgoingSocket) and self._sock.silent()

    def _receive(self, exchange: Exchange) -> bool:
        """Read once. False if there was nothing to read, or nobody to read it for."""
        if self._exchange is not exchange:
            return False
        try:
            data = self._sock.recv(RECV_BYTES)
        except BlockingIOError:
            return False
        except OSError as exc:
            self._break(exchange, Failure.RESET, f"the connection broke: {exc}", exc)
            return False
        if data:
            self._parser.feed(data)
        else:
            self._parser.eof()
            exchange.keep_alive = False
        if exchange.failure is not None:
            self.close()
        elif exchange.complete and not exchange.switched:
            self._release()
        return True

    def _receive_head(self, exchange: Exchange) -> None:
        while not exchange.settled and self._receive(exchange):
            pass

    def _release(self) -> None:
        keep = self._exchange is not None and self._exchange.keep_alive and self._written
        self._exchange = None
        if keep:
            self._pool.give(self)
        else:
            self.close()

    def _break(self, exchange: Exchange, failure: Failure, problem: str, cause: BaseException | None = None) -> None:
        exchange.fail(failure, problem, cause)
        self.abandon(exchange)
