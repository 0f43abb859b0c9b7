"""A request body as a sequence of pieces, whatever it was given as."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable

from meshlib.wire.message import InvalidRequest, RequestBody

__all__ = ["async_pieces", "sync_pieces"]

PIECE = 65_536
"""Bytes of a buffered body written at a time, so that an early answer is seen."""


def sync_pieces(body: RequestBody) -> Generator[bytes | memoryview, None, None]:
    """The pieces of `body`; raises InvalidRequest for a body that only async code can read."""
    if isinstance(body, bytes):
        view = memoryview(body)
        for start in range(0, len(view), PIECE):
            yield view[start : start + PIECE]
    elif isinstance(body, Iterable):
        yield from body
    elif body is not None:
        raise InvalidRequest(f"a synchronous call can't read a body of type {type(body).__name__}: give it an iterable")


async def async_pieces(body: RequestBody) -> AsyncGenerator[bytes | memoryview, None]:
    """The pieces of `body`; an async generator given as the body is closed when this one is."""
    if not isinstance(body, AsyncIterable):
        for piece in sync_pieces(body):
            yield piece
        return
    iterator = aiter(body)
    try:
        async for piece in iterator:
            yield piece
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()
