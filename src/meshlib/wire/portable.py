"""HTTP/1.1 on any event loop anyio knows, that is trio. For asyncio, `aio` is the faster one."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, TypeVar

import anyio

from meshlib.call.effects import Failure
from meshlib.identity.secured import Secured
from meshlib.wire.channel import AsyncChannelBase
from meshlib.wire.clock import connect_by, seconds_until
from meshlib.wire.encode import Encoded
from meshlib.wire.http1 import Exchange
from meshlib.wire.message import AsyncReply, Reply, Timing, WireError
from meshlib.wire.pieces import async_pieces
from meshlib.wire.pool import Pool
from meshlib.wire.securing import begin, handshake
from meshlib.wire.sockets import READABLE, SMALL_BODY, WRITABLE, SocketConnection, dial, numeric

__all__ = ["Connection", "PortableChannel", "connect"]

ResultT = TypeVar("ResultT")


async def wait(flow: Generator[tuple[socket.socket, int, float | None], int, ResultT]) -> ResultT:
    """Run a generator of `sockets`, waiting where it waits."""
    try:
        sock, events, deadline = next(flow)
        while True:
            sock, events, deadline = flow.send(await _ready(sock, events, deadline))
    except StopIteration as end:
        result: ResultT = end.value
        return result
    finally:
        flow.close()


async def _ready(sock: socket.socket, events: int, deadline: float | None) -> int:
    ready = 0
    try:
        with anyio.move_on_after(None if deadline is None else seconds_until(deadline)):
            if events == READABLE:
                await anyio.wait_readable(sock)
                ready = READABLE
            elif events == WRITABLE:
                await anyio.wait_writable(sock)
                ready = WRITABLE
            else:
                ready = await _either(sock)
    except anyio.ClosedResourceError:
        # Somebody closed it under us: going on finds that out.
        ready = events
    return ready


async def _either(sock: socket.socket) -> int:
    ready = 0

    async def note(waiting: Callable[[socket.socket], Awaitable[None]], event: int) -> None:
        nonlocal ready
        await waiting(sock)
        ready |= event
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(note, anyio.wait_readable, READABLE)
        group.start_soon(note, anyio.wait_writable, WRITABLE)
    return ready


async def connect(
    host: str, port: int, timing: Timing, pool: Pool[Connection], secured: Callable[[], Secured] | None = None
) -> Connection:
    """Open a connection, trying every address the host has.

    Raises:
        WireError: CONNECT, CONNECT_TIMEOUT or TLS; nothing was sent.
    """
    link = None if secured is None else begin(secured, f"{host}:{port}")
    addresses = numeric(host, port)
    deadline = connect_by(timing)
    try:
        if addresses is None:
            with anyio.fail_after(None if deadline is None else seconds_until(deadline)):
                addresses = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        sock = await wait(dial(host, port, addresses, deadline))
    except TimeoutError as exc:
        raise WireError(Failure.CONNECT_TIMEOUT, f"{host}:{port}: no address within the time for it") from exc
    except (OSError, UnicodeError) as exc:
        raise WireError(Failure.CONNECT, f"{host}:{port}: {exc}") from exc
    if link is not None:
        sock = await wait(handshake(sock, link, f"{host}:{port}", deadline))
    return Connection(sock, f"{host}:{port}", pool, link)


class Connection(SocketConnection):
    """One connection to an endpoint, used by one task at a time."""

    __slots__ = ()

    async def exchange(self, encoded: Encoded, timing: Timing) -> AsyncReply:
        """Send a request and wait for the response head.

        Raises:
            WireError: the connection broke, the time ran out, or what came is no HTTP. The connection is closed.
            InvalidRequest: a streamed body doesn't fit its Content-Length.
        """
        exchange = self.begin(encoded)
        try:
            data = encoded.buffered(SMALL_BODY)
            if data is not None:
                await wait(self.put(exchange, data, timing, last=True))
            else:
                await self._put_pieces(exchange, encoded, timing)
            await wait(self.head(exchange, timing))
        except BaseException:
            self.abandon(exchange)
            raise
        stream = NetworkStream(self, exchange) if exchange.switched else None
        body = Body(self, exchange, timing)
        return Reply(exchange.status, exchange.reason, exchange.version, exchange.headers, body, stream)

    async def _put_pieces(self, exchange: Exchange, encoded: Encoded, timing: Timing) -> None:
        await wait(self.put(exchange, encoded.head, timing))
        encoder = encoded.encoder()
        pieces = async_pieces(encoded.request.body)
        try:
            while not exchange.settled:
                with anyio.move_on_after(None if timing.head_by is None else seconds_until(timing.head_by)) as limit:
                    piece = await anext(pieces, None)
                if limit.cancelled_caught:
                    exchange.fail(Failure.TIMEOUT, "the time for a response ran out while the request body was sent")
                elif piece is None:
                    await wait(self.put(exchange, encoder.end(), timing, last=True))
                    return
                else:
                    await wait(self.put(exchange, encoder.encode(piece), timing))
        finally:
            await pieces.aclose()


class PortableChannel(AsyncChannelBase[Connection]):
    """Our connections to one endpoint on any event loop anyio knows. Belongs to one event loop.

    Args:
        host: address or name of the endpoint.
        port: its port.
        idle_timeout: seconds after which an idle connection is not used again (Envoy's default is an hour).
        max_requests: requests one connection may carry, 0 for no limit.
        secured: tells how connections are to be secured as of now; None: they are plain.
    """

    __slots__ = ()

    async def _connect(self, timing: Timing) -> Connection:
        return await connect(self._host, self._port, timing, self._pool, self._secured)


class Body:
    """The body of a response, as it comes."""

    __slots__ = ("_connection", "_exchange", "_timing")

    def __init__(self, connection: Connection, exchange: Exchange, timing: Timing) -> None:
        self._connection = connection
        self._exchange = exchange
        self._timing = timing

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        exchange = self._exchange
        if exchange.switched or (exchange.complete and not exchange.chunks):
            raise StopAsyncIteration
        try:
            await wait(self._connection.more(exchange, self._timing))
        except BaseException:
            self._connection.abandon(exchange)
            raise
        if not exchange.chunks:
            raise StopAsyncIteration
        return exchange.take()

    async def aclose(self) -> None:
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
    """A connection handed over to another protocol, with the methods of httpcore's `AsyncNetworkStream`."""

    __slots__ = ("_connection", "_exchange")

    def __init__(self, connection: Connection, exchange: Exchange) -> None:
        self._connection = connection
        self._exchange = exchange

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Up to `max_bytes`, `b""` at the end; raises WireError after `timeout` seconds or on a break."""
        await wait(self._connection.raw_read(self._exchange, _instant(timeout)))
        return self._exchange.take(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of `buffer`; raises WireError if that takes more than `timeout` seconds or the peer is gone."""
        await wait(self._connection.raw_write(self._exchange, buffer, _instant(timeout)))

    async def aclose(self) -> None:
        """Close the connection."""
        if self._connection.owns(self._exchange):
            anyio.notify_closing(self._connection.sock)
            self._connection.abandon(self._exchange)

    def get_extra_info(self, info: str) -> Any:
        """What is known under a name of httpcore's: `socket`, `client_addr`, `server_addr`, `ssl_object`, or None."""
        return self._connection.extra_info(info)


def _instant(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds
