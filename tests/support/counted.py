"""A way to a Consul agent on which every request is seen: what was asked, and what is being held back just now."""

from __future__ import annotations

import asyncio
import re
from typing import Any, NamedTuple

from tests.support.cut import Cut

__all__ = ["Asked", "CountedCut"]

_REQUEST = re.compile(rb"(GET|PUT|POST|DELETE) (/\S*) HTTP/1\.1\r\n")


class Asked(NamedTuple):
    """One request that went through."""

    method: str
    target: str

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]

    @property
    def blocking(self) -> bool:
        """Whether Consul may hold the answer back."""
        return "index=" in self.target.partition("?")[2]


class CountedCut(Cut):
    """A `Cut` that counts. A request must begin a piece of its own on the wire, as those of an HTTP client do.

    Attributes:
        asked: every request that went through while nothing was garbled, in order.
    """

    def __init__(self, target: str) -> None:
        self.asked: list[Asked] = []
        self._waiting: dict[object, Asked] = {}
        super().__init__(target)

    @property
    def held(self) -> list[Asked]:
        """The requests that wait for their answers now."""
        return list(self._waiting.values())

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = object()

        def went(data: bytes) -> None:
            if found := _REQUEST.match(data):
                self._waiting[connection] = asked = Asked(found[1].decode(), found[2].decode())
                self.asked.append(asked)

        def came(_data: bytes) -> None:
            self._waiting.pop(connection, None)

        try:
            await super()._relay(_Reading(reader, went), _Writing(writer, came))  # type: ignore[arg-type]
        finally:
            self._waiting.pop(connection, None)


class _Reading:
    """A reader that tells what it read."""

    def __init__(self, inner: asyncio.StreamReader, tell: Any) -> None:
        self._inner = inner
        self._tell = tell

    async def read(self, size: int) -> bytes:
        data = await self._inner.read(size)
        self._tell(data)
        return data


class _Writing:
    """A writer that tells what it wrote."""

    def __init__(self, inner: asyncio.StreamWriter, tell: Any) -> None:
        self._inner = inner
        self._tell = tell

    def write(self, data: bytes) -> None:
        self._tell(data)
        self._inner.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
