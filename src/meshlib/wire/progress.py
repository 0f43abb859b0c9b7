"""What the channels over httpcore share: how far a request got, and whom it is for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import httpcore

from meshlib.call.effects import Failure
from meshlib.wire.clock import connect_by, seconds_until, soonest
from meshlib.wire.message import InvalidRequest, Reply, Request, RequestBody, Timing, WireError
from meshlib.wire.pieces import async_pieces, sync_pieces

__all__ = ["Origin", "Progress", "make_reply"]

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
    """How far one request got, from httpcore's trace events; and what the caller's own body raised meanwhile."""

    __slots__ = ("_own", "peer", "received", "reused", "sent")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.sent = self.received = False
        self.reused = True
        self._own: Exception | None = None

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

    def pieces(self, body: RequestBody) -> Generator[bytes | memoryview, None, None]:
        """The pieces of `body`. What it raises itself, an OSError maybe, is no error of the wire's."""
        try:
            yield from sync_pieces(body)
        except Exception as exc:
            self._own = exc
            raise

    async def apieces(self, body: RequestBody) -> AsyncGenerator[bytes | memoryview, None]:
        """The same for async code."""
        pieces = async_pieces(body)
        try:
            async for piece in pieces:
                yield piece
        except Exception as exc:
            self._own = exc
            raise
        finally:
            await pieces.aclose()

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
            if exc is self._own:
                raise
            raise self.error(exc) from exc


class Origin:
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
        host = self.authority.encode("ascii" if self.authority.isascii() else "idna")
        url = httpcore.URL(scheme=self.scheme.encode(), host=host, target=request.target)
        return httpcore.Request(request.method, url, headers=_framed(request), content=content, extensions=extensions)


def _framed(request: Request) -> list[tuple[bytes, bytes]]:
    headers = list(request.headers)
    if request.body is None or {b"content-length", b"transfer-encoding"} & {name.lower() for name, _ in headers}:
        return headers
    if isinstance(request.body, bytes):
        return [*headers, (b"Content-Length", b"%d" % len(request.body))]
    return [*headers, (b"Transfer-Encoding", b"chunked")]


def make_reply(request: Request, response: httpcore.Response, body: Any) -> Reply[Any]:
    """The response of httpcore's as ours; `body` closes it."""
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
