"""TLS and HTTP/2 through httpcore: the endpoint is dialled, while URL, Host and SNI stay the logical ones."""

from __future__ import annotations

import asyncio
import ssl
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import httpcore

from meshlib.call.effects import Failure
from meshlib.wire.channel import may_resend
from meshlib.wire.clock import connect_by, seconds_until, soonest
from meshlib.wire.message import AsyncReply, InvalidRequest, Reply, Request, SyncReply, Timing, WireError
from meshlib.wire.pieces import async_pieces, sync_pieces

__all__ = ["AsyncFallbackChannel", "SyncFallbackChannel"]

_FAILURES: tuple[tuple[type[Exception], Failure], ...] = (
    (httpcore.ConnectTimeout, Failure.CONNECT_TIMEOUT),
    (httpcore.PoolTimeout, Failure.CONNECT_TIMEOUT),
    (httpcore.TimeoutException, Failure.TIMEOUT),
    (httpcore.ConnectError, Failure.CONNECT),
    (httpcore.NetworkError, Failure.RESET),
    (httpcore.ProtocolError, Failure.PROTOCOL),
    (anyio.BrokenResourceError, Failure.RESET),
    (anyio.ClosedResourceError, Failure.RESET),
    (OSError, Failure.RESET),
)
_ERRORS = tuple(kind for kind, _ in _FAILURES)
# How httpcore says that the peer hung up, in HTTP/1.1 and in HTTP/2.
_HUNG_UP = ("Server disconnected", "<StreamReset", "<ConnectionTerminated")


class Progress:
    """How far one request got, from httpcore's trace events."""

    __slots__ = ("peer", "received", "reused", "sent")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.sent = self.received = False
        self.reused = True

    def note(self, event: str, _: object) -> None:
        """The trace function of a synchronous request."""
        if event.endswith("connect_tcp.started"):
            self.reused = False
        elif event.endswith("send_request_headers.started"):
            self.sent = True
        elif event.endswith("receive_response_headers.complete"):
            self.received = True

    async def anote(self, event: str, info: object) -> None:
        """The trace function of an asynchronous request."""
        self.note(event, info)

    def error(self, exc: Exception) -> Exception:
        """What to raise for an error of httpcore's."""
        if isinstance(exc, httpcore.LocalProtocolError) and not self.received:
            return InvalidRequest(str(exc))
        failure = next(failure for kind, failure in _FAILURES if isinstance(exc, kind))
        if failure is Failure.PROTOCOL and str(exc).startswith(_HUNG_UP):
            failure = Failure.RESET
        return self.failed(failure, str(exc) or type(exc).__name__)

    def failed(self, failure: Failure, problem: str) -> WireError:
        """A failure of the request, as far as it got."""
        connecting = failure in {Failure.CONNECT, Failure.CONNECT_TIMEOUT}
        return WireError(
            failure,
            f"{self.peer}: {problem}",
            sent=self.sent and not connecting,
            received=self.received,
            reused=self.reused and not connecting,
        )

    @contextmanager
    def mapping(self) -> Generator[None, None, None]:
        """Raises what `error` makes of httpcore's errors."""
        try:
            yield
        except _ERRORS as exc:
            raise self.error(exc) from exc


class _Origin:
    """What the synchronous and the asynchronous fallback know of their endpoint."""

    __slots__ = ("authority", "busy", "carried", "closed", "host", "max_requests", "port", "scheme", "sni")

    def __init__(self, host: str, port: int, scheme: str, authority: str, sni: str | None, max_requests: int) -> None:
        self.host = host
        self.port = port
        self.scheme = scheme
        self.authority = authority
        self.sni = sni
        self.max_requests = max_requests
        self.carried: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self.busy = 0
        self.closed = False

    @property
    def peer(self) -> str:
        return f"{self.host}:{self.port}"

    def spent(self, response: httpcore.Response) -> Any:
        """The network stream under `response` if it has carried all the requests it may, otherwise None."""
        stream = response.extensions.get("network_stream")
        if not self.max_requests or stream is None or not response.extensions["http_version"].startswith(b"HTTP/1"):
            return None
        carried = self.carried[stream] = self.carried.get(stream, 0) + 1
        return stream if carried >= self.max_requests else None

    def request(self, request: Request, timing: Timing, content: Any, trace: Callable[..., Any]) -> httpcore.Request:
        opening = connect_by(timing)
        reading = soonest(timing.read, timing.head_by)
        extensions = {
            "timeout": {
                "connect": None if opening is None else seconds_until(opening),
                "read": None if reading is None else seconds_until(reading),
                "write": timing.write,
            },
            "trace": trace,
        }
        if self.sni is not None:
            extensions["sni_hostname"] = self.sni
        host, _, port = self.authority.partition(":")
        url = httpcore.URL(
            scheme=self.scheme.encode(), host=host.encode(), port=int(port) if port else None, target=request.target
        )
        return httpcore.Request(request.method, url, headers=_framed(request), content=content, extensions=extensions)


def _framed(request: Request) -> list[tuple[bytes, bytes]]:
    headers = list(request.headers)
    if request.body is None or {b"content-length", b"transfer-encoding"} & {name.lower() for name, _ in headers}:
        return headers
    if isinstance(request.body, bytes):
        return [*headers, (b"Content-Length", b"%d" % len(request.body))]
    return [*headers, (b"Transfer-Encoding", b"chunked")]


def _reply(request: Request, response: httpcore.Response, body: Any) -> Reply[Any]:
    extensions = response.extensions
    switched = response.status == 101 or (request.method == b"CONNECT" and response.status < 300)
    return Reply(
        response.status,
        extensions.get("reason_phrase", b""),
        extensions.get("http_version", b"HTTP/1.1"),
        response.headers,
        body,
        extensions["network_stream"] if switched else None,
    )


class AsyncFallbackChannel:
    """Our connections to one endpoint over TLS or HTTP/2. Belongs to one event loop, asyncio's or trio's.

    Args:
        host: address or name of the endpoint.
        port: its port.
        scheme: `http` or `https`.
        authority: the logical `host` or `host:port`, as in the URL.
        sni: the server name for TLS; None takes it from `authority`.
        ssl_context: for `https`.
        http2: whether HTTP/2 may be spoken; over plain http it is taken for granted.
        idle_timeout: seconds after which an idle connection is closed.
        max_requests: requests one HTTP/1.1 connection may carry, 0 for no limit.
    """

    __slots__ = ("_closing", "_origin", "_pool")

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
        self._origin = _Origin(host, port, scheme, authority, sni, max_requests)
        self._closing: asyncio.Task[None] | None = None
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=None,
            keepalive_expiry=idle_timeout,
            http1=scheme == "https" or not http2,
            http2=http2,
            network_backend=_AsyncDialler(host, port),
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
            content = async_pieces(content)
        outgoing = self._origin.request(request, timing, content, progress.anote)
        with anyio.move_on_after(None if timing.head_by is None else seconds_until(timing.head_by)):
            with progress.mapping():
                response = await self._pool.handle_async_request(outgoing)
            body = _AsyncBody(self, response, progress, timing, self._origin.spent(response))
            return _reply(request, response, body)
        connecting = not (progress.sent or progress.reused)
        failure = Failure.CONNECT_TIMEOUT if connecting else Failure.TIMEOUT
        raise progress.failed(failure, "the time to wait for the response head ran out")

    def ended(self) -> None:
        """One response less; the last one of a closed channel takes the connections with it."""
        self._origin.busy -= 1
        if self._origin.closed and not self._origin.busy:
            self._close_pool()

    def close(self) -> None:
        """Close idle connections now and the rest when the last response ends. Call it on the channel's own loop."""
        if not self._origin.closed:
            self._origin.closed = True
            if not self._origin.busy:
                self._close_pool()

    def _close_pool(self) -> None:
        if "trio" in sys.modules and _on_trio():
            sys.modules["trio"].lowlevel.spawn_system_task(self._pool.aclose)
        elif asyncio._get_running_loop() is not None:
            closing: Coroutine[Any, Any, None] = self._pool.aclose()
            self._closing = asyncio.get_running_loop().create_task(closing)


def _on_trio() -> bool:
    return bool(sys.modules["trio"].lowlevel.in_trio_run())


class _AsyncBody:
    __slots__ = ("_channel", "_iterator", "_open", "_progress", "_response", "_spent", "_timing")

    def __init__(
        self,
        channel: AsyncFallbackChannel,
        response: httpcore.Response,
        progress: Progress,
        timing: Timing,
        spent: httpcore.AsyncNetworkStream | None,
    ) -> None:
        self._channel = channel
        self._response = response
        self._iterator: AsyncIterator[bytes] | None = None
        self._progress = progress
        self._timing = timing
        self._open = True
        self._spent = spent

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._iterator is None:
            self._iterator = aiter(self._response.stream)  # type: ignore[arg-type]
        body_by = self._timing.body_by
        try:
            with anyio.move_on_after(None if body_by is None else seconds_until(body_by)):
                with self._progress.mapping():
                    return await anext(self._iterator)
        except BaseException:
            # Whatever ends the body, its end included.
            await self.aclose()
            raise
        await self.aclose()
        raise self._progress.failed(Failure.TIMEOUT, "the time for the response body ran out")

    async def aclose(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            with anyio.CancelScope(shield=True):
                if isinstance(self._iterator, AsyncGenerator):
                    await self._iterator.aclose()
                if self._spent is not None:
                    # Before it can be had by another: httpcore finds it closed, and opens a new one.
                    await self._spent.aclose()
                await self._response.aclose()
        finally:
            self._channel.ended()


class _AsyncDialler(httpcore.AsyncNetworkBackend):
    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return await self._backend.connect_tcp(self._host, self._port, timeout, local_address, socket_options)


class SyncFallbackChannel:
    """Our blocking connections to one endpoint over TLS or HTTP/2, for any number of threads.

    Args:
        host: address or name of the endpoint.
        port: its port.
        scheme: `http` or `https`.
        authority: the logical `host` or `host:port`, as in the URL.
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
        self._origin = _Origin(host, port, scheme, authority, sni, max_requests)
        self._lock = threading.RLock()
        self._bound = _Bound()
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context,
            max_connections=None,
            keepalive_expiry=idle_timeout,
            http1=scheme == "https" or not http2,
            http2=http2,
            network_backend=_Dialler(host, port, self._bound),
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
            content = sync_pieces(content)
        outgoing = self._origin.request(request, timing, content, progress.note)
        with self._bound.until(timing.head_by), progress.mapping():
            response = self._pool.handle_request(outgoing)
        spent = self._origin.spent(response)
        return _reply(request, response, _SyncBody(self, response, progress, self._bound, timing.body_by, spent))

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


class _SyncBody:
    __slots__ = ("_bound", "_by", "_channel", "_iterator", "_open", "_progress", "_response", "_spent")

    def __init__(
        self,
        channel: SyncFallbackChannel,
        response: httpcore.Response,
        progress: Progress,
        bound: _Bound,
        body_by: float | None,
        spent: httpcore.NetworkStream | None,
    ) -> None:
        self._channel = channel
        self._response = response
        self._iterator: Iterator[bytes] | None = None
        self._progress = progress
        self._bound = bound
        self._by = body_by
        self._open = True
        self._spent = spent

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._response.stream)  # type: ignore[arg-type]
        try:
            with self._bound.until(self._by), self._progress.mapping():
                return next(self._iterator)
        except BaseException:
            # Whatever ends the body, its end included.
            self.close()
            raise

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            if self._spent is not None:
                # Before it can be had by another: httpcore finds it closed, and opens a new one.
                self._spent.close()
            self._response.close()
        finally:
            self._channel.ended()


class _Bound(threading.local):
    """The instant that bounds the reads of this thread: httpcore itself bounds only each single read."""

    instant: float | None = None

    @contextmanager
    def until(self, instant: float | None) -> Generator[None, None, None]:
        self.instant = instant
        try:
            yield
        finally:
            self.instant = None

    def clip(self, timeout: float | None) -> float | None:
        if self.instant is None:
            return timeout
        left = self.instant - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for the response ran out")
        return left if timeout is None else min(left, timeout)


class _Dialler(httpcore.NetworkBackend):
    def __init__(self, host: str, port: int, bound: _Bound) -> None:
        self._host = host
        self._port = port
        self._bound = bound
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._backend.connect_tcp(self._host, self._port, timeout, local_address, socket_options)
        return _BoundStream(stream, self._bound)


class _BoundStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, bound: _Bound) -> None:
        self._stream = stream
        self._bound = bound

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._bound.clip(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._bound.clip(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _BoundStream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._bound)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
