"""Starting work on an event loop from where nothing can be awaited: `close`, or the garbage collector."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

__all__ = ["Spawn", "spawner"]

Spawn = Callable[[Callable[[], Awaitable[None]]], None]


def spawner() -> Spawn:
    """A function that starts a coroutine function on the loop that runs now, from wherever it is called later."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        token = trio.lowlevel.current_trio_token()

        def spawn_on_trio(work: Callable[[], Awaitable[None]]) -> None:
            if trio.lowlevel.in_trio_run():
                trio.lowlevel.spawn_system_task(work)
                return
            try:
                token.run_sync_soon(trio.lowlevel.spawn_system_task, work)
            except trio.RunFinishedError:
                # The loop is over, and its sockets with it.
                pass

        return spawn_on_trio
    loop = asyncio.get_running_loop()
    running: set[asyncio.Future[None]] = set()

    def start(work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.ensure_future(work(), loop=loop)
        running.add(task)
        task.add_done_callback(running.discard)

    def spawn(work: Callable[[], Awaitable[None]]) -> None:
        if asyncio._get_running_loop() is loop:
            start(work)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(start, work)

    return spawn
