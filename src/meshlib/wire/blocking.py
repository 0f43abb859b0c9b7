"""HTTP/1.1 on blocking calls, for synchronous clients and any number of threads."""

from __future__ import annotations

import math
import select
import socket
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

from meshlib.call.effects import Failure
from meshlib.identity.secured import Secured
from meshlib.wire.channel import ChannelBase, may_resend
from meshlib.wire.clock import connect_by, seconds_until
from meshlib.wire.encode import Encoded
from meshlib.wire.http1 import Exchange
from meshlib.wire.message import Reply, Request, SyncReply, Timing, WireError
from meshlib.wire.pieces import sync_pieces
from meshlib.wire.pool import Pool
from meshlib.wire.securing import begin, handshake
from meshlib.wire.sockets import SMALL_BODY, SocketConnection, dial, numeric

__all__ = ["Connection", "SyncChannel", "connect"]

ResultT = TypeVar("ResultT")

LONGEST_POLL = 2**31 - 1
"""Milliseconds, 24 days: what poll(2) can be told."""


def wait(flow: Generator[tuple[socket.socket, int, float | None], int, ResultT]) -> ResultT:
    """Run a generator of `sockets`, waiting where it waits."""
    try:
        sock, events, deadline = next(flow)
        while True:
            poll = select.poll()
            poll.register(sock, events)
            ready = poll.poll(
                None if deadline is None else math.ceil(min(seconds_until(deadline) * 1000, LONGEST_POLL))
            )
            sock, events, deadline = flow.send(ready[0][1] if ready else 0)
    except StopIteration as end:
        result: ResultT = end.value
        return result
    finally:
        flow.close()


def connect(
    host: str, port: int, timing: Timing, pool: Pool[Connection], secured: Callable[[], Secured] | None = None
) -> Connection:
    """Open a connection, trying every address the host has. Resolving a name can't be bounded.

    Raises:
        WireError: CONNECT, CONNECT_TIMEOUT or TLS; nothing was sent.
    """
    link = None if secured is None else begin(secured, f"{host}:{port}")
    addresses = numeric(host, port)
    deadline = connect_by(timing)
    try:
        if addresses is None:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        sock = wait(dial(host, port, addresses, deadline))
    except (OSError, UnicodeError) as exc:
        raise WireError(Failure.CONNECT, f"{host}:{port}: {exc}") from exc
    if link is not None:
        sock = wait(handshake(sock, link, f"{host}:{port}", deadline))
    return Connection(sock, f"{host}:{port}", pool, link)


class Connection(SocketConnection):
    """One connection to an endpoint, used by one thread at a time."""

    __slots__ = ()

    def exchange(self, encoded: Encoded, timing: Timing) -> SyncReply:
        """Send a request and wait for the response head.

        Raises:
            WireError: the connection broke, the time ran out, or what came is no HTTP. The connection is closed.
            InvalidRequest: a streamed body doesn't fit its Content-Length.
        """
        exchange = self.begin(encoded)
        try:
            data = encoded.buffered(SMALL_BODY)
            if data is not None:
                wait(self.put(exchange, data, timing, last=True))
            else:
                self._put_pieces(exchange, encoded, timing)
            wait(self.head(exchange, timing))
        except BaseException:
            self.abandon(exchange)
            raise
        stream = NetworkStream(self, exchange) if exchange.switched else None
        body = Body(self, exchange, timing)
        return Reply(exchange.status, exchange.reason, exchange.version, exchange.headers, body, stream)

    def _put_pieces(self, exchange: Exchange, encoded: Encoded, timing: Timing) -> None:
        wait(self.put(exchange, encoded.head, timing))
        encoder = encoded.encoder()
        pieces = sync_pieces(encoded.request.body)
        try:
            while not exchange.settled:
                piece = next(pieces, None)
                if piece is None:
                    wait(self.put(exchange, encoder.end(), timing, last=True))
                    return
                wait(self.put(exchange, encoder.encode(piece), timing))
        finally:
            pieces.close()


class SyncChannel(ChannelBase[Connection]):
    """Our blocking connections to one endpoint, for any number of threads.

    Args:
        host: address or name of the endpoint.
        port: its port.
        idle_timeout: seconds after which an idle connection is not used again (Envoy's default is an hour).
        max_requests: requests one connection may carry, 0 for no limit.
        secured: tells how connections are to be secured as of now; None: they are plain.
    """

    __slots__ = ()

    def send(self, request: Request, timing: Timing) -> SyncReply:
        """Send a request and wait for the response head.

        Raises:
            WireError: no response head came.
            InvalidRequest: the request can't be written.
        """
        encoded = Encoded(request)
        connection = self._pool.take()
        if connection is not None:
            try:
                return connection.exchange(encoded, timing)
            except WireError as error:
                if not may_resend(error, request):
                    raise
        self._pool.opening()
        try:
            connection = connect(self._host, self._port, timing, self._pool, self._secured)
        except BaseException:
            self._pool.gone(None)
            raise
        return connection.exchange(encoded, timing)


class Body:
    """The body of a response, as it comes."""

    __slots__ = ("_connection", "_exchange", "_timing")

    def __init__(self, connection: Connection, exchange: Exchange, timing: Timing) -> None:
        self._connection = connection
        self._exchange = exchange
        self._timing = timing

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        if exchange.switched or (exchange.complete and not exchange.chunks):
            raise StopIteration
        try:
            wait(self._connection.more(exchange, self._timing))
        except BaseException:
            self._connection.abandon(exchange)
            raise
        if not exchange.chunks:
            raise StopIteration
        return exchange.take()

    def close(self) -> None:
        """Give the body up: the connection is closed unless the whole response had come."""
        self._connection.abandon(self._exchange)
        self._exchange.fail(Failure.RESET, "the response body was closed")

    def __del__(self) -> None:
        if self._connection.owns(self._exchange):
            self._connection.abandon(self._exchange)
            warnings.warn(
                f"a response from {self._connection.peer} was neither read to its end nor closed",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


class NetworkStream:
    """A connection handed over to another protocol, with the methods of httpcore's `NetworkStream`."""

    __slots__ = ("_connection", "_exchange")

    def __init__(self, connection: Connection, exchange: Exchange) -> None:
        self._connection = connection
        self._exchange = exchange

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Up to `max_bytes`, `b""` at the end; raises WireError after `timeout` seconds or on a break."""
        wait(self._connection.raw_read(self._exchange, _instant(timeout)))
        return self._exchange.take(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of `buffer`; raises WireError if that takes more than `timeout` seconds or the peer is gone."""
        wait(self._connection.raw_write(self._exchange, buffer, _instant(timeout)))

    def close(self) -> None:
        """Close the connection."""
        self._connection.abandon(self._exchange)

    def get_extra_info(self, info: str) -> Any:
        """What is known under a name of httpcore's: `socket`, `client_addr`, `server_addr`, `ssl_object`, or None."""
        return self._connection.extra_info(info)


def _instant(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds
