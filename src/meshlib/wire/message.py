"""What goes over the wire and what comes back: the words shared by every connection and every channel."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from meshlib.call.effects import Failure

__all__ = [
    "AsyncBody",
    "AsyncReply",
    "Headers",
    "InvalidRequest",
    "Reply",
    "Request",
    "RequestBody",
    "SyncBody",
    "SyncReply",
    "Timing",
    "WireError",
]

Headers = Sequence[tuple[bytes, bytes]]
RequestBody = bytes | Iterable[bytes] | AsyncIterable[bytes] | None


class AsyncBody(Protocol):
    """A response body to be read once. Iterating raises `WireError` when it breaks or runs out of time."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None:
        """Give the body up. What is unread is lost, and unless all of it had come so is the connection."""


class SyncBody(Protocol):
    """The synchronous `AsyncBody`."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """Give the body up. What is unread is lost, and unless all of it had come so is the connection."""


BodyT = TypeVar("BodyT", bound=AsyncBody | SyncBody)


class Request:
    """One request, to be written as it stands.

    Attributes:
        method: the method, as a token.
        target: the request target: path and query, or `host:port` for CONNECT.
        headers: raw pairs, `Host` included. Content-Length or Transfer-Encoding are added only if neither is there.
        body: bytes are buffered; an iterable is sent piece by piece; None is no body.
        resend: it may be sent a second time if a kept-alive connection dies without one byte of a response, that is:
            the method is idempotent and the body can be iterated again.
    """

    __slots__ = ("body", "headers", "method", "resend", "target")

    def __init__(
        self, method: bytes, target: bytes, headers: Headers, body: RequestBody = None, *, resend: bool = False
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.resend = resend


class Timing:
    """The bounds of one exchange; None is no bound.

    Attributes:
        connect: seconds to open a connection.
        head_by: monotonic instant by which the response head must have come.
        read: seconds to wait for bytes each time.
        write: seconds to wait for the peer to take bytes each time.
        body_by: monotonic instant by which the response body must have ended.
    """

    __slots__ = ("body_by", "connect", "head_by", "read", "write")

    def __init__(
        self,
        connect: float | None = None,
        head_by: float | None = None,
        read: float | None = None,
        write: float | None = None,
        body_by: float | None = None,
    ) -> None:
        self.connect = connect
        self.head_by = head_by
        self.read = read
        self.write = write
        self.body_by = body_by


class Reply(Generic[BodyT]):
    """A response head, and the body to come.

    Attributes:
        status: the HTTP status.
        reason: the reason phrase, as sent.
        http_version: `b"HTTP/1.1"` and the like.
        headers: raw pairs in the order they came.
        body: the body; close it, or read it to its end.
        network_stream: after 101 or an accepted CONNECT, the connection itself with the methods of httpcore's network
            streams; closing the body closes it. Otherwise None.
    """

    __slots__ = ("body", "headers", "http_version", "network_stream", "reason", "status")

    def __init__(
        self,
        status: int,
        reason: bytes,
        http_version: bytes,
        headers: list[tuple[bytes, bytes]],
        body: BodyT,
        network_stream: Any = None,
    ) -> None:
        self.status = status
        self.reason = reason
        self.http_version = http_version
        self.headers = headers
        self.body = body
        self.network_stream = network_stream


AsyncReply = Reply[AsyncBody]
SyncReply = Reply[SyncBody]


class WireError(Exception):
    """An exchange failed below HTTP. `__cause__` says more.

    Attributes:
        failure: what kind of failure.
        sent: some byte of the request was written to a socket.
        received: some byte of a response came.
        reused: the connection had carried a request before.
    """

    def __init__(
        self, failure: Failure, message: str, *, sent: bool = False, received: bool = False, reused: bool = False
    ) -> None:
        self.failure = failure
        self.sent = sent
        self.received = received
        self.reused = reused
        super().__init__(message)


class InvalidRequest(ValueError):
    """The request can't be written as HTTP/1.1: the caller's mistake, no endpoint's.

    Nothing of it reached a peer, unless a streamed body turned out shorter or longer than its Content-Length.
    """
