"""Channels: our connections to one endpoint, kept alive and used again."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from meshlib.call.effects import Failure
from meshlib.identity.secured import Secured
from meshlib.wire import aio
from meshlib.wire.encode import Encoded
from meshlib.wire.message import AsyncReply, Request, Timing, WireError
from meshlib.wire.pool import Pool, Pooled

__all__ = ["AsyncChannel", "AsyncChannelBase", "ChannelBase", "may_resend"]


def may_resend(error: WireError, request: Request) -> bool:
    """Whether a request that failed on a connection may go out once more on a fresh one.

    A server may close an idle connection at the very moment we write to it. If the connection had served before and
    died without a byte of an answer, that is what happened; the request is repeated if nothing of it was written, or if
    it is harmless to repeat.
    """
    return error.reused and not error.received and error.failure is Failure.RESET and (request.resend or not error.sent)


class AsyncPooled(Pooled, Protocol):
    """A pooled connection that async code talks over."""

    async def exchange(self, encoded: Encoded, timing: Timing) -> AsyncReply:
        """Send a request and wait for the response head."""
        ...


ConnectionT = TypeVar("ConnectionT", bound=Pooled)
AsyncConnectionT = TypeVar("AsyncConnectionT", bound=AsyncPooled)


class ChannelBase(Generic[ConnectionT]):
    """What all channels are made of.

    Args:
        host: address or name of the endpoint.
        port: its port.
        idle_timeout: seconds after which an idle connection is not used again (Envoy's default is an hour).
        max_requests: requests one connection may carry, 0 for no limit.
        secured: tells how connections are to be secured as of now; None: they are plain.
    """

    __slots__ = ("_host", "_pool", "_port", "_secured")

    def __init__(
        self,
        host: str,
        port: int,
        *,
        idle_timeout: float = 3600,
        max_requests: int = 0,
        secured: Callable[[], Secured] | None = None,
    ) -> None:
        self._host = host
        self._secured = secured
        self._port = port
        self._pool: Pool[ConnectionT] = Pool(idle_timeout, max_requests)

    @property
    def idle(self) -> int:
        """Connections that wait for work."""
        return self._pool.idle

    @property
    def busy(self) -> int:
        """Connections at work or being opened."""
        return self._pool.busy

    def close(self) -> None:
        """Close idle connections now and busy ones when they end. May be called from any thread."""
        self._pool.close()


class AsyncChannelBase(ChannelBase[AsyncConnectionT]):
    """What the channels of async code have in common."""

    __slots__ = ()

    async def send(self, request: Request, timing: Timing) -> AsyncReply:
        """Send a request and wait for the response head.

        Raises:
            WireError: no response head came.
            InvalidRequest: the request can't be written.
        """
        encoded = Encoded(request)
        connection = self._pool.take()
        if connection is not None:
            try:
                return await connection.exchange(encoded, timing)
            except WireError as error:
                if not may_resend(error, request):
                    raise
        self._pool.opening()
        try:
            connection = await self._connect(timing)
        except BaseException:
            self._pool.gone(None)
            raise
        return await connection.exchange(encoded, timing)

    @abstractmethod
    async def _connect(self, timing: Timing) -> AsyncConnectionT: ...


class AsyncChannel(AsyncChannelBase[aio.Connection]):
    """Our asyncio connections to one endpoint. Belongs to one event loop.

    Args:
        host: address or name of the endpoint.
        port: its port.
        idle_timeout: seconds after which an idle connection is not used again (Envoy's default is an hour).
        max_requests: requests one connection may carry, 0 for no limit.
        secured: tells how connections are to be secured as of now; None: they are plain.
    """

    __slots__ = ("_loop",)

    def __init__(
        self,
        host: str,
        port: int,
        *,
        idle_timeout: float = 3600,
        max_requests: int = 0,
        secured: Callable[[], Secured] | None = None,
    ) -> None:
        super().__init__(host, port, idle_timeout=idle_timeout, max_requests=max_requests, secured=secured)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def _connect(self, timing: Timing) -> aio.Connection:
        self._loop = asyncio.get_running_loop()
        return await aio.connect(self._host, self._port, timing, self._pool, self._secured)

    def close(self) -> None:
        """Close idle connections now and busy ones when they end. May be called from any thread."""
        loop = self._loop
        if loop is None or asyncio._get_running_loop() is loop:
            self._pool.close()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._pool.close)
