"""HTTP/1.1 on asyncio: a connection is a Protocol; a call is no task, and at most one timer."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable
from typing import Any, cast

from meshlib.call.effects import Failure
from meshlib.identity.secured import Link, Secured
from meshlib.wire.aio_streams import Body, NetworkStream
from meshlib.wire.clock import connect_by, seconds_until, soonest
from meshlib.wire.encode import Encoded
from meshlib.wire.http1 import Exchange, ResponseParser
from meshlib.wire.message import AsyncReply, Reply, Timing, WireError
from meshlib.wire.pieces import async_pieces
from meshlib.wire.pool import Pool
from meshlib.wire.securing import HANDSHAKE_ERRORS, begin, refused

__all__ = ["Connection", "connect"]

HIGH_WATER = 262_144
"""Bytes of a response body that may wait for their reader before the socket is left unread."""
SMALL_BODY = 65_536
"""Bytes of a request body up to which it is joined to its head: a copy is cheaper than a second system call."""


async def connect(
    host: str, port: int, timing: Timing, pool: Pool[Connection], secured: Callable[[], Secured] | None = None
) -> Connection:
    """Open a connection, trying every address the host has.

    Raises:
        WireError: CONNECT, CONNECT_TIMEOUT or TLS; nothing was sent.
    """
    link = None if secured is None else begin(secured, f"{host}:{port}")
    loop = asyncio.get_running_loop()
    deadline = connect_by(timing)
    connection = Connection(loop, host, port, pool, link)
    opened = False
    try:
        async with asyncio.timeout(None if deadline is None else seconds_until(deadline)):
            if link is None:
                await loop.create_connection(lambda: connection, host, port)
            else:
                context, name = link.secured.context, link.secured.server_hostname
                await loop.create_connection(lambda: connection, host, port, ssl=context, server_hostname=name)
        opened = True
    except TimeoutError as exc:
        # The kernel's own ETIMEDOUT is a TimeoutError too.
        raise WireError(Failure.CONNECT_TIMEOUT, f"{host}:{port}: no connection within the time for it") from exc
    except (OSError, ValueError) as exc:  # the latter for what is no host name: an empty label, one too long
        if link is not None and isinstance(exc, HANDSHAKE_ERRORS):
            refused(exc, f"{host}:{port}")
        raise WireError(Failure.CONNECT, f"{host}:{port}: {exc}") from exc
    finally:
        if not opened:
            connection.disown()
    return connection


class Connection(asyncio.Protocol):
    """One connection to an endpoint; one exchange at a time.

    Args:
        loop: the running loop.
        host: the endpoint's address, for messages.
        port: the endpoint's port, for messages.
        pool: where it belongs.
        link: how it is secured; None: plain.
    """

    __slots__ = (
        "_closed", "_deadline", "_exchange", "_host", "_link", "_loop", "_parser", "_poll", "_pool", "_port",
        "_reading_paused", "_timer", "_timer_at", "_transport", "_writing_paused", "_written", "idle_since", "requests",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, host: str, port: int, pool: Pool[Connection], link: Link | None = None
    ) -> None:
        self._link = link
        self._loop = loop
        self._host = host
        self._port = port
        self._pool = pool
        self._parser = ResponseParser()
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._poll = select.poll()
        self._exchange: Exchange | None = None
        self._closed = False
        self._reading_paused = False
        self._writing_paused = False
        self._written = False
        self._timer_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self.requests = 0
        self.idle_since = 0.0

    @property
    def peer(self) -> str:
        """`host:port` of the endpoint."""
        return f"{self._host}:{self._port}"

    def usable(self) -> bool:
        """Whether the peer has neither hung up nor spoken out of turn."""
        # Code that keeps the loop busy keeps it from telling us, hence the look at the socket itself.
        if self._link is not None and not self._link.fit(time.monotonic()):
            return False
        return not self._closed and not self._transport.is_closing() and not self._poll.poll(0)

    def close(self) -> None:
        """Close at once; what was not written yet is dropped."""
        if self._closed:
            return
        self._closed = True
        self._parser.close()
        self._exchange = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()
        self._pool.gone(self)

    def disown(self) -> None:
        """Its opening was given up, so that the pool need not hear of its end."""
        if not self._closed:
            self._closed = True
            self._parser.close()

    async def exchange(self, encoded: Encoded, timing: Timing) -> AsyncReply:
        """Send a request and wait for the response head.

        Raises:
            WireError: the connection broke, the time ran out, or what came is no HTTP. The connection is closed.
            InvalidRequest: a streamed body doesn't fit its Content-Length.
        """
        exchange = Exchange(encoded, reused=self.requests > 0, secured=self._link is not None)
        self.requests += 1
        self._parser.expect(exchange)
        self._exchange = exchange
        self._written = False
        try:
            await self._write(exchange, encoded, timing)
            while not exchange.started:
                if exchange.failure is not None:
                    raise exchange.error(self.peer)
                await self.wait(exchange, timing.read, timing.head_by)
        except BaseException:
            self.abandon(exchange)
            raise
        body = Body(self, exchange, timing)
        stream = NetworkStream(self, exchange) if exchange.switched else None
        return Reply(exchange.status, exchange.reason, exchange.version, exchange.headers, body, stream)

    def abandon(self, exchange: Exchange) -> None:
        """Close the connection if it is still at `exchange`."""
        if self._exchange is exchange:
            self.close()

    def owns(self, exchange: Exchange) -> bool:
        """Whether the connection is still at `exchange`."""
        return self._exchange is exchange

    async def _write(self, exchange: Exchange, encoded: Encoded, timing: Timing) -> None:
        if self._transport.is_closing():
            exchange.fail(Failure.RESET, "the connection was closed while it was idle")
            return
        exchange.sent = True
        data = encoded.buffered(SMALL_BODY)
        if data is not None:
            self._written = True
            self._transport.write(data)
            return
        self._transport.write(encoded.head)
        if timing.head_by is None:
            await self._write_body(exchange, encoded, timing)
            return
        # Only here can somebody else's code, the body's, keep us from looking at the clock.
        limit = asyncio.timeout(seconds_until(timing.head_by))
        try:
            async with limit:
                await self._write_body(exchange, encoded, timing)
        except TimeoutError:
            if not limit.expired():
                raise
            exchange.fail(Failure.TIMEOUT, "the time for a response ran out while the request body was sent")

    async def _write_body(self, exchange: Exchange, encoded: Encoded, timing: Timing) -> None:
        encoder = encoded.encoder()
        pieces = async_pieces(encoded.request.body)
        try:
            async for piece in pieces:
                # A body that never waits would keep the loop from reading an early answer, or from noticing a break.
                while self._poll.poll(0) and not exchange.settled:  # noqa: ASYNC110 - it is the loop that is waited for
                    await asyncio.sleep(0)
                if exchange.settled:
                    return
                self._transport.write(encoder.encode(piece))
                while self._writing_paused and not exchange.settled:
                    await self.wait(exchange, timing.write, timing.head_by)
        finally:
            await pieces.aclose()
        if not exchange.settled:
            self._written = True
            self._transport.write(encoder.end())

    async def wait(self, exchange: Exchange, seconds: float | None, instant: float | None) -> None:
        """Wait until something happens to `exchange`; it fails at the earlier of the two bounds."""
        deadline = soonest(seconds, instant)
        if deadline is not None:
            self._watch(deadline)
        waiter = self._loop.create_future()
        exchange.waiters.append(waiter)
        try:
            await waiter
        finally:
            exchange.waiters.remove(waiter)
            if self._exchange is exchange:
                self._deadline = None

    def _watch(self, deadline: float) -> None:
        # The timer is left running from call to call and looks at the deadline when it fires: setting and
        # cancelling one for each call would cost more than the few that fire in vain.
        self._deadline = deadline
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_later(deadline - time.monotonic(), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        deadline = self._deadline
        if deadline is None:
            return
        left = deadline - time.monotonic()
        if left > 0:
            self._timer_at = deadline
            self._timer = self._loop.call_later(left, self._on_timer)
        elif self._exchange is not None:
            part = "body" if self._exchange.started else "head"
            self._break(self._exchange, Failure.TIMEOUT, f"the time to wait for the response {part} ran out")

    def _break(self, exchange: Exchange, failure: Failure, problem: str, cause: BaseException | None = None) -> None:
        exchange.fail(failure, problem, cause)
        self.close()
        _wake(exchange)

    def taken(self, exchange: Exchange) -> None:
        """The reader took what there was: let more come."""
        if self._reading_paused and self._exchange is exchange:
            self._reading_paused = False
            self._transport.resume_reading()

    def write_raw(self, data: bytes) -> None:
        """Write to a connection that was handed over."""
        self._transport.write(data)

    def writing_paused(self) -> bool:
        """Whether the peer takes bytes more slowly than we write."""
        return self._writing_paused

    def extra_info(self, name: str) -> Any:
        """What the transport knows under `name`."""
        return self._transport.get_extra_info(name)

    def abandon_soon(self, exchange: Exchange) -> None:
        """`abandon` from wherever the garbage collector runs."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.abandon, exchange)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket"), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            # Nobody asked: whatever it is, the next response can't be trusted.
            self.close()
            return
        self._parser.feed(data)
        if exchange.failure is not None:
            self.close()
        elif exchange.complete:
            self._release(exchange)
        elif exchange.size > HIGH_WATER and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        _wake(exchange)

    def _release(self, exchange: Exchange) -> None:
        self._exchange = None
        self._deadline = None
        if not (exchange.keep_alive and self._written) or self._transport.get_write_buffer_size():
            self.close()
            return
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        self._pool.give(self)

    def eof_received(self) -> bool:
        exchange = self._exchange
        if exchange is not None:
            # asyncio calls this for an end without a farewell too.
            if self._link is not None and not self._transport.get_extra_info("ssl_object").farewell():
                exchange.fail(Failure.RESET, "the connection was closed without TLS's farewell")
            else:
                self._parser.eof()
            if exchange.switched:
                _wake(exchange)
                return self._link is None  # TLS has no half-closed connections
            self.close()
            _wake(exchange)
        else:
            self.close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.fail(Failure.RESET, f"the connection broke: {exc or 'closed'}", exc)
        self.close()
        if exchange is not None:
            _wake(exchange)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._exchange is not None:
            _wake(self._exchange)


def _wake(exchange: Exchange) -> None:
    for waiter in exchange.waiters:
        if not waiter.done():
            waiter.set_result(None)
