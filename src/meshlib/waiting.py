"""Waiting for what another thread does, in threads and in coroutines of any event loop.

A coroutine that waits holds no thread: a thousand calls may wait at once, and the threads of the application's own
`to_thread` stay free.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Changes", "Flag", "trio_here"]

Wake = Callable[[], object]


class Changes:
    """Tells whoever waits that something has changed. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sleepers: set[Wake] = set()

    def tell(self) -> None:
        """Have everybody who waits look again."""
        with self._changed:
            self._changed.notify_all()
            sleepers, self._sleepers = self._sleepers, set()
        for wake in sleepers:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                wake()

    def wait_until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Block until `holds`, or for `seconds`; whether it holds."""
        with self._changed:
            return self._changed.wait_for(holds, seconds)

    async def sleep_until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """`wait_until` without blocking the event loop."""
        import anyio

        with anyio.move_on_after(seconds):
            while not holds():
                event = anyio.Event()
                wake = _waking(event.set)
                with self._changed:
                    self._sleepers.add(wake)
                try:
                    if not holds():  # it may have come about before anybody knew of us
                        await event.wait()
                finally:
                    with self._changed:
                        self._sleepers.discard(wake)
        return holds()


class Flag(Changes):
    """A `threading.Event` that coroutines can wait for as well."""

    def __init__(self) -> None:
        super().__init__()
        self._set = False

    def is_set(self) -> bool:
        """Whether it is."""
        return self._set

    def set(self) -> None:
        """Set it for good, and wake whoever waits."""
        self._set = True
        self.tell()

    def wait(self, seconds: float) -> bool:
        """Block until it is set, or for `seconds`; whether it is."""
        return self._set or self.wait_until(self.is_set, seconds)

    async def sleep(self, seconds: float) -> bool:
        """`wait` without blocking the event loop."""
        return self._set or await self.sleep_until(self.is_set, seconds)


def _waking(wake: Callable[[], object]) -> Wake:
    """What does `wake` on the loop that runs now, from any thread; raises RuntimeError when that loop has ended."""
    if (trio := trio_here()) is not None:
        token = trio.current_trio_token()
        return lambda: token.run_sync_soon(wake)
    loop = asyncio.get_running_loop()
    return lambda: loop.call_soon_threadsafe(wake)


def trio_here() -> Any:
    """The module `trio.lowlevel` where trio is the event loop that runs now; None elsewhere.

    httpcore imports trio, on whatever thread needs it first: there may be one of which only a part is there yet.
    """
    lowlevel = getattr(sys.modules.get("trio"), "lowlevel", None)
    return lowlevel if lowlevel is not None and lowlevel.in_trio_run() else None
