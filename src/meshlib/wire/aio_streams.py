"""What is read from an asyncio connection after the head: a response body, or another protocol."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from meshlib.call.effects import Failure
from meshlib.wire.http1 import Exchange
from meshlib.wire.message import Timing, WireError

if TYPE_CHECKING:
    from meshlib.wire.aio import Connection

__all__ = ["Body", "NetworkStream"]


class Body:
    """The body of a response, as it comes. What came already is had even when the connection has gone on."""

    __slots__ = ("_connection", "_exchange", "_timing")

    def __init__(self, connection: Connection, exchange: Exchange, timing: Timing) -> None:
        self._connection = connection
        self._exchange = exchange
        self._timing = timing

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        exchange = self._exchange
        if exchange.switched:
            raise StopAsyncIteration
        while not exchange.chunks:
            if exchange.complete:
                raise StopAsyncIteration
            if exchange.failure is not None:
                raise exchange.error(self._connection.peer)
            try:
                await self._connection.wait(exchange, self._timing.read, self._timing.body_by)
            except BaseException:
                self._connection.abandon(exchange)
                raise
        body_by = self._timing.body_by
        if body_by is not None and not exchange.complete and time.monotonic() >= body_by:
            self._connection.abandon(exchange)
            exchange.fail(Failure.TIMEOUT, "the time for the response body ran out")
            raise exchange.error(self._connection.peer)
        data = exchange.take()
        self._connection.taken(exchange)
        return data

    async def aclose(self) -> None:
        """Give the body up: the connection is closed unless the whole response had come."""
        exchange = self._exchange
        self._connection.abandon(exchange)
        exchange.fail(Failure.RESET, "the response body was closed")

    def __del__(self) -> None:
        if self._connection.owns(self._exchange):
            self._connection.abandon_soon(self._exchange)
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
        exchange = self._exchange
        while not exchange.chunks:
            if exchange.complete:
                return b""
            if exchange.failure is not None:
                raise exchange.error(self._connection.peer)
            await self._wait(timeout, "read")
        data = exchange.take(max_bytes)
        self._connection.taken(exchange)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of `buffer`; raises WireError if the peer takes nothing for `timeout` seconds or is gone."""
        exchange = self._exchange
        if exchange.failure is None and self._connection.owns(exchange):
            self._connection.write_raw(buffer)
            while self._connection.writing_paused() and exchange.failure is None:
                await self._wait(timeout, "write")
        else:
            exchange.fail(Failure.RESET, "the connection was closed")
        if exchange.failure is not None:
            raise exchange.error(self._connection.peer)

    async def _wait(self, seconds: float | None, purpose: str) -> None:
        # Reader and writer may be two tasks, and a timeout of either leaves the connection whole.
        connection, exchange = self._connection, self._exchange
        try:
            async with asyncio.timeout(seconds):
                await connection.wait(exchange, None, None)
        except TimeoutError as exc:
            problem = f"{connection.peer}: the time to {purpose} ran out after {seconds} s"
            raise WireError(Failure.TIMEOUT, problem, sent=True, received=True, reused=exchange.reused) from exc

    async def aclose(self) -> None:
        """Close the connection."""
        self._connection.abandon(self._exchange)

    def get_extra_info(self, info: str) -> Any:
        """What is known under a name of httpcore's: `socket`, `client_addr`, `server_addr`, `ssl_object`, or None."""
        names = {"socket": "socket", "client_addr": "sockname", "server_addr": "peername", "ssl_object": "ssl_object"}
        return self._connection.extra_info(names[info]) if info in names else None
