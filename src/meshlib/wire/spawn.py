"""Starting work on an event loop from where nothing can be awaited: `close`, or the garbage collector."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType

import anyio

from meshlib.waiting import trio_here

__all__ = ["Spawn", "settled", "spawner"]

Work = Callable[[], Awaitable[None]]
Spawn = Callable[[Work], None]

SETTLE = 1.0
"""Seconds that work which was begun is given at the end of its loop."""

_running: set[asyncio.Future[None]] = set()
_late: list[tuple[object, Work]] = []


def spawner() -> Spawn:
    """A function that starts a coroutine function on the loop that runs now, from wherever it is called later."""
    return _on_trio(sys.modules["trio"]) if trio_here() is not None else _on_asyncio()


def _on_trio(trio: ModuleType) -> Spawn:
    token = trio.lowlevel.current_trio_token()

    def spawn(work: Work) -> None:
        if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is token:
            start(work)
            return
        try:
            token.run_sync_soon(start, work)
        except trio.RunFinishedError:
            # The loop is over, and its sockets with it.
            pass

    def start(work: Work) -> None:
        try:
            trio.lowlevel.spawn_system_task(work)
        except RuntimeError:
            # The loop is about to end and takes no more tasks.
            _late.append((token, work))

    return spawn


def _on_asyncio() -> Spawn:
    loop = asyncio.get_running_loop()

    def spawn(work: Work) -> None:
        if asyncio._get_running_loop() is loop:
            start(work)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(start, work)

    def start(work: Work) -> None:
        task = asyncio.ensure_future(work(), loop=loop)
        _running.add(task)
        task.add_done_callback(_running.discard)

    return spawn


async def settled() -> None:
    """At the end of a loop: have done, within a second, what was begun on it or came too late to be begun."""
    with anyio.move_on_after(SETTLE):
        loop = asyncio._get_running_loop()
        if loop is not None:
            begun = [task for task in list(_running) if task.get_loop() is loop]
            await asyncio.gather(*begun, return_exceptions=True)
            return
        token = sys.modules["trio"].lowlevel.current_trio_token()
        for entry in [entry for entry in _late if entry[0] is token]:
            _late.remove(entry)
            await entry[1]()
