"""Starting work on an event loop from where nothing can be awaited: `close`, or the garbage collector."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

__all__ = ["Spawn", "settled", "spawner"]

Spawn = Callable[[Callable[[], Awaitable[None]]], None]

SETTLE = 1.0
"""Seconds that work which was begun is given at the end of its loop."""

_running: set[asyncio.Future[None]] = set()


def spawner() -> Spawn:
    """A function that starts a coroutine function on the loop that runs now, from wherever it is called later."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        token = trio.lowlevel.current_trio_token()

        def spawn_on_trio(work: Callable[[], Awaitable[None]]) -> None:
            try:
                if trio.lowlevel.in_trio_run():
                    trio.lowlevel.spawn_system_task(work)
                else:
                    token.run_sync_soon(trio.lowlevel.spawn_system_task, work)
            except RuntimeError:
                # The loop is over, or about to be, and its sockets with it.
                pass

        return spawn_on_trio
    loop = asyncio.get_running_loop()

    def start(work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.ensure_future(work(), loop=loop)
        _running.add(task)
        task.add_done_callback(_running.discard)

    def spawn(work: Callable[[], Awaitable[None]]) -> None:
        if asyncio._get_running_loop() is loop:
            start(work)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(start, work)

    return spawn


async def settled() -> None:
    """Wait, for a second at most, for what was begun on this asyncio loop; trio does so itself."""
    loop = asyncio._get_running_loop()
    begun = [task for task in _running if task.get_loop() is loop]
    if begun:
        await asyncio.wait(begun, timeout=SETTLE)
