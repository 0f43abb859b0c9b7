"""Doing something at the end of an event loop, while the loop can still do it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import anyio.lowlevel

from meshlib.wire.spawn import settled

__all__ = ["at_the_end"]


def at_the_end(work: Callable[[], None]) -> object:
    """Have `work` done when the loop that runs now ends: asyncio and trio close asynchronous generators then.

    Returns:
        what must be kept until then; when it is forgotten, `work` is done at once.
    """
    keeper = _keep(work)
    try:
        keeper.__anext__().send(None)
    except StopIteration:
        pass
    return keeper


async def _keep(work: Callable[[], None]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        work()
        with anyio.CancelScope(shield=True):
            await settled()
            # Transports close their sockets in the next turn of the loop.
            await anyio.lowlevel.checkpoint()
