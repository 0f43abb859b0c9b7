"""The agent's thread: one event loop of its own, so that the mesh serves sync code and many loops alike."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["LoopThread"]

T = TypeVar("T")


class LoopThread:
    """A daemon thread that runs an asyncio loop until it is stopped.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run `work` on the loop. Raises RuntimeError once it was told to stop."""
        with self._lock:  # what is accepted comes before the end, and so does run, or is cancelled
            if not self._stopped:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise RuntimeError(f"the thread {self._thread.name} was told to stop")

    @property
    def current(self) -> bool:
        """Whether the caller is on this thread."""
        return threading.current_thread() is self._thread

    def stop(self, timeout: float) -> None:
        """Cancel what runs, end the loop and wait for the thread, at most `timeout` seconds."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._loop.call_soon_threadsafe(self._cancel_all)
        if not self.current:
            self._thread.join(timeout)

    def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()

        async def end() -> None:
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._loop.shutdown_asyncgens()
            self._loop.stop()

        self._ending = self._loop.create_task(end())
