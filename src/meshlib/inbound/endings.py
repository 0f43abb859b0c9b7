"""The end of a request that came in: its permit hears of it once, whatever became of the response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

from meshlib.inbound.denials import Permit, with_reply

__all__ = ["Ending", "EndingBody", "StartResponse", "parting"]

Message = MutableMapping[str, Any]

STARTS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))
LASTS = frozenset(
    (
        "http.response.body",
        "http.response.pathsend",
        "http.response.zerocopysend",
        "websocket.http.response.body",
    )
)
"""These end a response unless they say that more comes."""

SWITCHING = 101


def parting(send: Callable[[Message], Awaitable[None]]) -> Callable[[Message], Awaitable[None]]:
    """A `send` whose response asks for the connection to be closed after it.

    A server that is about to end closes the connections on which nobody asks anything just now. A request that is on
    its way at that moment is lost, so callers are asked to give their connections up while they are still served.
    """

    def leave(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        return send(message)

    return leave


class Ending:
    """Looks on while an ASGI application answers.

    Args:
        permit: gets to know the end, and gives the response its headers.
        clock: monotonic seconds.
        send: the server's.
    """

    __slots__ = ("_clock", "_permit", "_send", "_status", "_trailers")

    def __init__(self, permit: Permit, clock: Callable[[], float], send: Callable[[Message], Awaitable[None]]) -> None:
        self._permit = permit
        self._clock = clock
        self._send = send
        self._status: int | None = None
        self._trailers = False

    def send(self, message: Message) -> Awaitable[None]:
        """What the application calls in place of the server's `send`."""
        kind = message["type"]
        if kind in STARTS:
            self._status = message.get("status", SWITCHING)
            self._trailers = message.get("trailers", False)
            if self._permit.reply:
                message = {**message, "headers": with_reply(message.get("headers", ()), self._permit.reply)}
        elif kind == "http.response.trailers":
            if not message.get("more_trailers", False):
                return self._send_last(message)
        elif kind in LASTS and not message.get("more_body", False) and not self._trailers:
            return self._send_last(message)
        return self._send(message)

    async def _send_last(self, message: Message) -> None:
        # What the application does afterwards, for itself, is no part of the request.
        try:
            await self._send(message)
        finally:
            self.end()

    def end(self) -> None:
        """The request has ended."""
        self._permit.end(self._status, self._clock())


class StartResponse:
    """Looks on while a WSGI application answers; called as the server's `start_response`.

    Args:
        start_response: the server's.
        permit: see `Ending`.
        clock: monotonic seconds.
    """

    __slots__ = ("_clock", "_permit", "_start", "_status")

    def __init__(self, start_response: Any, permit: Permit, clock: Callable[[], float]) -> None:
        self._start = start_response
        self._permit = permit
        self._clock = clock
        self._status: int | None = None

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        code = status[:3]
        self._status = int(code) if code.isdigit() else None
        if self._permit.reply:
            raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            every = with_reply(raw, self._permit.reply)
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in every]
        return self._start(status, headers) if exc_info is None else self._start(status, headers, exc_info)

    def end(self) -> None:
        """The request has ended."""
        self._permit.end(self._status, self._clock())


class EndingBody:
    """A response's body that is still being made. The request ends with it: exhausted, failed, closed or forgotten.

    Args:
        body: the application's.
        end: called when it has ended; a second call does nothing.
    """

    __slots__ = ("_body", "_end", "_iterator")

    def __init__(self, body: Iterable[bytes], end: Callable[[], None]) -> None:
        self._body = body
        self._end = end
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            return next(self._iterator)
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        """What a server calls when it is done with the response, or its client is gone."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._end()

    def __del__(self) -> None:
        self._end()  # a server that calls no `close`
