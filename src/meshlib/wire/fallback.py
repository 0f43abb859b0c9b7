"""TLS and HTTP/2 through httpcore: the endpoint is dialled, while URL, Host and SNI stay the logical ones."""

from __future__ import annotations

import ssl
import threading
from typing import Any

import anyio
import httpcore

from meshlib.call.effects import Failure
from meshlib.wire.channel import may_resend
from meshlib.wire.clock import seconds_until
from meshlib.wire.dialler import AsyncDialler, Bound, Dialler
from meshlib.wire.fallback_bodies import AsyncBody, SyncBody
from meshlib.wire.message import AsyncReply, Request, SyncReply, Timing, WireError
from meshlib.wire.progress import Origin, Progress, make_reply
from meshlib.wire.spawn import Spawn, spawner

__all__ = ["AsyncFallbackChannel", "SyncFallbackChannel"]


class AsyncFallbackChannel:
    """Our connections to one endpoint over TLS or HTTP/2. Belongs to one event loop, asyncio's or trio's.

    Args:
        host: address or name of the endpoint.
        port: its port.
        scheme: `http` or `https`.
        authority: the logical host, as in the URL but without its port; TLS checks the peer's certificate against it.
        sni: the server name for TLS; None takes it from `authority`.
        ssl_context: for `https`.
        http2: whether HTTP/2 may be spoken; over plain http it is taken for granted.
        idle_timeout: seconds after which an idle connection is closed.
        max_requests: requests one HTTP/1.1 connection may carry, 0 for no limit.
    """

    __slots__ = ("_origin", "_pool", "_spawn")

    def __init__(
        self,
        host: str,
        port: int,
        *,
        scheme: str,
        authority: str,
        sni: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        http2: bool = False,
        idle_timeout: float = 3600,
        max_requests: int = 0,
    ) -> None:
        self._origin = Origin(host, port, scheme, authority, sni, max_requests)
        self._spawn: Spawn | None = None
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=None,
            keepalive_expiry=idle_timeout,
            http1=scheme == "https" or not http2,
            http2=http2,
            network_backend=AsyncDialler(host, port),
        )

    @property
    def idle(self) -> int:
        """Connections that wait for work."""
        return sum(connection.is_idle() for connection in self._pool.connections)

    @property
    def busy(self) -> int:
        """Requests whose response hasn't ended."""
        return self._origin.busy

    async def send(self, request: Request, timing: Timing) -> AsyncReply:
        """Send a request and wait for the response head.

        Raises:
            WireError: no response head came.
            InvalidRequest: the request can't be written.
        """
        if self._spawn is None:
            self._spawn = spawner()
        self._origin.busy += 1
        try:
            try:
                return await self._attempt(request, timing)
            except WireError as error:
                if not may_resend(error, request):
                    raise
            return await self._attempt(request, timing)
        except BaseException:
            self.ended()
            raise

    async def _attempt(self, request: Request, timing: Timing) -> AsyncReply:
        progress = Progress(self._origin.peer)
        content: Any = request.body
        if not (content is None or isinstance(content, bytes)):
            content = progress.apieces(content)
        outgoing = self._origin.request(request, timing, content, progress.anote)
        with anyio.move_on_after(None if timing.head_by is None else seconds_until(timing.head_by)):
            with progress.mapping():
                response = await self._pool.handle_async_request(outgoing)
            body = AsyncBody(self, response, progress, timing, self._origin.spent(response))
            return make_reply(request, response, body)
        connecting = not (progress.sent or progress.reused)
        failure = Failure.CONNECT_TIMEOUT if connecting else Failure.TIMEOUT
        raise progress.failed(failure, "the time to wait for the response head ran out")

    def ended(self) -> None:
        """One response less; the last one of a closed channel takes the connections with it."""
        self._origin.busy -= 1
        if self._origin.closed and not self._origin.busy:
            self._close_pool()

    def abandon(self, response: httpcore.Response) -> None:
        """Close a response nobody closed, from wherever the garbage collector runs."""

        async def close() -> None:
            await response.aclose()
            self.ended()

        if self._spawn is not None:
            self._spawn(close)

    def close(self) -> None:
        """Close idle connections now and the rest when the last response ends. May be called from any thread."""
        if not self._origin.closed:
            self._origin.closed = True
            if not self._origin.busy:
                self._close_pool()

    def _close_pool(self) -> None:
        if self._spawn is not None:
            self._spawn(self._pool.aclose)


class SyncFallbackChannel:
    """Our blocking connections to one endpoint over TLS or HTTP/2, for any number of threads.

    Args:
        host: address or name of the endpoint.
        port: its port.
        scheme: `http` or `https`.
        authority: the logical host, as in the URL but without its port; TLS checks the peer's certificate against it.
        sni: the server name for TLS; None takes it from `authority`.
        ssl_context: for `https`.
        http2: whether HTTP/2 may be spoken; over plain http it is taken for granted.
        idle_timeout: seconds after which an idle connection is closed.
        max_requests: requests one HTTP/1.1 connection may carry, 0 for no limit.
    """

    __slots__ = ("_bound", "_lock", "_origin", "_pool")

    def __init__(
        self,
        host: str,
        port: int,
        *,
        scheme: str,
        authority: str,
        sni: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        http2: bool = False,
        idle_timeout: float = 3600,
        max_requests: int = 0,
    ) -> None:
        self._origin = Origin(host, port, scheme, authority, sni, max_requests)
        self._lock = threading.RLock()
        self._bound = Bound()
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context,
            max_connections=None,
            keepalive_expiry=idle_timeout,
            http1=scheme == "https" or not http2,
            http2=http2,
            network_backend=Dialler(host, port, self._bound),
        )

    @property
    def idle(self) -> int:
        """Connections that wait for work."""
        return sum(connection.is_idle() for connection in self._pool.connections)

    @property
    def busy(self) -> int:
        """Requests whose response hasn't ended."""
        return self._origin.busy

    def send(self, request: Request, timing: Timing) -> SyncReply:
        """Send a request and wait for the response head.

        Raises:
            WireError: no response head came.
            InvalidRequest: the request can't be written.
        """
        with self._lock:
            self._origin.busy += 1
        try:
            try:
                return self._attempt(request, timing)
            except WireError as error:
                if not may_resend(error, request):
                    raise
            return self._attempt(request, timing)
        except BaseException:
            self.ended()
            raise

    def _attempt(self, request: Request, timing: Timing) -> SyncReply:
        progress = Progress(self._origin.peer)
        content: Any = request.body
        if not (content is None or isinstance(content, bytes)):
            content = progress.pieces(content)
        outgoing = self._origin.request(request, timing, content, progress.note)
        with self._bound.until(timing.head_by), progress.mapping():
            response = self._pool.handle_request(outgoing)
        spent = self._origin.spent(response)
        return make_reply(request, response, SyncBody(self, response, progress, self._bound, timing.body_by, spent))

    def ended(self) -> None:
        """One response less; the last one of a closed channel takes the connections with it."""
        with self._lock:
            self._origin.busy -= 1
            last = self._origin.closed and not self._origin.busy
        if last:
            self._pool.close()

    def close(self) -> None:
        """Close idle connections now and the rest when the last response ends."""
        with self._lock:
            last = not self._origin.closed and not self._origin.busy
            self._origin.closed = True
        if last:
            self._pool.close()
