"""Bodies whose length isn't said, counted while they come.

One that turns out to be too long is answered 413 if nothing has been answered yet, else its request is cut off. The
application sees what it sees when its caller goes away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

__all__ = ["CountedInput", "CountedReceive", "CountedStart", "TooLong"]

Message = MutableMapping[str, Any]

DISCONNECT: Message = {"type": "http.disconnect"}
STARTS = ("http.response.start", "http.response.pathsend")


class TooLong(OSError):
    """What a WSGI application gets that reads beyond the bound."""


class CountedReceive:
    """What an ASGI application receives by and sends to.

    Args:
        receive, send: the server's.
        most: bytes of the body.
        refuse: answers that it is too long.

    Attributes:
        exceeded: whether it was.
    """

    __slots__ = ("_left", "_receive", "_refuse", "_send", "_started", "exceeded")

    def __init__(
        self,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        most: int,
        refuse: Callable[[], Awaitable[None]],
    ) -> None:
        self.exceeded = False
        self._receive = receive
        self._send = send
        self._left = most
        self._refuse = refuse
        self._started = False

    async def receive(self) -> Message:
        """The next message, until the body is too long."""
        if self.exceeded:
            return DISCONNECT
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left >= 0:
            return message
        self.exceeded = True
        if not self._started:
            await self._refuse()
        return DISCONNECT

    async def send(self, message: Message) -> None:
        """Pass on what is sent, until the body is too long."""
        if not self.exceeded:
            self._started = True
            await self._send(message)


class CountedInput:
    """What a WSGI application reads its body from.

    Args:
        body: `wsgi.input`.
        most: bytes of it.

    Attributes:
        exceeded: whether it was longer.
    """

    def __init__(self, body: Any, most: int) -> None:
        self.exceeded = False
        self._body = body
        self._left = most

    def read(self, size: int | None = -1) -> bytes:
        """As of a file."""
        return self._counted(self._body.read(self._bounded(size)))

    def readline(self, size: int | None = -1) -> bytes:
        """As of a file."""
        return self._counted(self._body.readline(self._bounded(size)))

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """As of a file."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _bounded(self, size: int | None) -> int:
        # One byte more than may come shows that it is too long.
        return self._left + 1 if size is None or size < 0 else min(size, self._left + 1)

    def _counted(self, found: bytes) -> bytes:
        self._left -= len(found)
        if self._left < 0:
            self._left = 0
            self.exceeded = True
        if self.exceeded:
            raise TooLong("the body is longer than this service takes")
        return found


class CountedStart:
    """A WSGI server's `start_response` for an application that reads a `CountedInput`.

    What the application says of a body that was too long, most often 500, isn't passed on: the refusal is.

    Args:
        start_response: the server's.
        body: what the application reads.
        refuse: answers by `start_response`, and gives the body of the answer.
    """

    def __init__(self, start_response: Any, body: CountedInput, refuse: Callable[[Any], list[bytes]]) -> None:
        self._start = start_response
        self._body = body
        self._refuse = refuse
        self._started = False
        self._refusal: list[bytes] | None = None

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if self._body.exceeded and not self._started:
            return lambda data: None
        self._started = True
        return self._start(status, headers) if exc_info is None else self._start(status, headers, exc_info)

    def refused(self) -> list[bytes] | None:
        """The body of the refusal, once the body was too long and nothing had been answered; None: go on."""
        if self._body.exceeded and not self._started and self._refusal is None:
            self._refusal = self._refuse(self._start)
        return self._refusal

    def serve(self, app: Callable[[Any], Iterable[bytes]]) -> Iterable[bytes]:
        """Call the application, and give the body of what is answered."""
        try:
            made = app(self)
        except Exception:
            refusal = self.refused()
            if refusal is None:
                raise
            return refusal
        return self._made(made) if self.refused() is None else self._instead(made)

    def _instead(self, made: Iterable[bytes]) -> list[bytes]:
        close = getattr(made, "close", None)
        if close is not None:
            close()
        assert self._refusal is not None
        return self._refusal

    def _made(self, made: Iterable[bytes]) -> Iterable[bytes]:
        return made if type(made) in {list, tuple} else _CountedBody(made, self)


class _CountedBody:
    """A response's body that is made while the request's is still read."""

    def __init__(self, made: Iterable[bytes], start: CountedStart) -> None:
        self._made = made
        self._parts: Iterator[bytes] | None = None
        self._start = start
        self._over = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._over:
            raise StopIteration
        try:
            if self._parts is None:
                self._parts = iter(self._made)
            part = next(self._parts)
        except Exception:  # StopIteration, too: it may have ended for want of a body
            if (refusal := self._start.refused()) is None:
                raise
            part = refusal[0]
        else:
            if (refusal := self._start.refused()) is None:
                return part
            part = refusal[0]
        self._over = True
        return part

    def close(self) -> None:
        close = getattr(self._made, "close", None)
        if close is not None:
            close()
