"""Bodies that are read before a request is let in, for an authorizer, and that the application reads once more."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from meshlib.inbound.effects import EarlyBody, ReadBody
from meshlib.plan.inbound import Inbound

__all__ = ["EarlyInput", "EarlyReceive", "reads_bodies"]

Message = MutableMapping[str, Any]


def reads_bodies(inbound: Inbound) -> bool:
    """Whether an authorizer may be asked that wants to see bodies."""
    authorization = inbound.authorization
    if authorization is None or not authorization.providers:
        return False
    return any(
        one.envoy_ext_authz_http.include_request_body_in_check is not None for one in authorization.providers.values()
    )


class EarlyReceive:
    """What an ASGI application receives by when some of it was received before.

    Args:
        receive: the server's.
    """

    __slots__ = ("_ended", "_length", "_messages", "_receive")

    def __init__(self, receive: Callable[[], Awaitable[Message]]) -> None:
        self._receive = receive
        self._messages: list[Message] = []
        self._length = 0
        self._ended = False

    async def read(self, effect: ReadBody) -> EarlyBody:
        """Receive until the body has ended, or there is more of it than is wanted."""
        while not self._ended and self._length <= effect.most:
            message = await self._receive()
            self._messages.append(message)
            self._length += len(message.get("body", b""))
            self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        whole = b"".join(message.get("body", b"") for message in self._messages)
        gone = bool(self._messages) and self._messages[-1]["type"] != "http.request"
        return EarlyBody(whole[: effect.most], gone or not self._ended or len(whole) > effect.most)

    async def receive(self) -> Message:
        """What the application calls: first what was received already, then what comes."""
        return self._messages.pop(0) if self._messages else await self._receive()


class EarlyInput:
    """Reads the body of a WSGI request, and puts an input in its place that begins with what was read.

    Args:
        environ: of the request.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ
        self._body: Any = environ.get("wsgi.input")
        self._read = b""
        self._left = _length(environ)

    def read(self, effect: ReadBody) -> EarlyBody:
        """Read until the body has ended, or there is more of it than is wanted."""
        if self._body is None:
            return EarlyBody(b"", False)
        while (wanted := effect.most + 1 - len(self._read)) > 0:
            part = self._body.read(wanted if self._left is None else min(wanted, self._left))
            if not part:
                break
            self._read += part
            if self._left is not None:
                self._left -= len(part)
        self._environ["wsgi.input"] = io.BufferedReader(_Replayed(self._read, self._body, self._left))
        ended = len(self._read) <= effect.most and not self._left
        return EarlyBody(self._read[: effect.most], not ended)


class _Replayed(io.RawIOBase):
    """A body from its beginning, of which `head` was read; `left`: bytes there are besides, None: up to its end."""

    def __init__(self, head: bytes, rest: Any, left: int | None) -> None:
        self._head = memoryview(head)
        self._rest = rest
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part: bytes | memoryview
        if self._head:
            part, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            part = self._rest.read(len(buffer) if self._left is None else min(len(buffer), self._left))
            if self._left is not None:
                self._left -= len(part)
        buffer[: len(part)] = part
        return len(part)


def _length(environ: dict[str, Any]) -> int | None:
    """Bytes of a request's body; None: its end is told by its input (`wsgi.input_terminated`)."""
    said = environ.get("CONTENT_LENGTH") or ""
    if said.isdecimal():
        return int(said[:20])
    return None if environ.get("wsgi.input_terminated") else 0
