"""Response bodies that come through httpcore."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import TYPE_CHECKING

import anyio
import httpcore

from meshlib.call.effects import Failure
from meshlib.wire.clock import seconds_until
from meshlib.wire.dialler import Bound
from meshlib.wire.message import Timing
from meshlib.wire.progress import Progress

if TYPE_CHECKING:
    from meshlib.wire.fallback import AsyncFallbackChannel, SyncFallbackChannel

__all__ = ["AsyncBody", "SyncBody"]


class AsyncBody:
    """The body of a response to async code, as it comes."""

    __slots__ = ("_channel", "_iterator", "_open", "_progress", "_response", "_spent", "_timing")

    def __init__(
        self,
        channel: AsyncFallbackChannel,
        response: httpcore.Response,
        progress: Progress,
        timing: Timing,
        spent: httpcore.AsyncNetworkStream | None,
    ) -> None:
        self._channel = channel
        self._response = response
        self._iterator: AsyncIterator[bytes] | None = None
        self._progress = progress
        self._timing = timing
        self._open = True
        self._spent = spent

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._iterator is None:
            self._iterator = aiter(self._response.stream)  # type: ignore[arg-type]
        body_by = self._timing.body_by
        try:
            with anyio.move_on_after(None if body_by is None else seconds_until(body_by)):
                with self._progress.mapping():
                    return await anext(self._iterator)
        except BaseException:
            # Whatever ends the body, its end included.
            await self.aclose()
            raise
        await self.aclose()
        raise self._progress.failed(Failure.TIMEOUT, "the time for the response body ran out")

    async def aclose(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            with anyio.CancelScope(shield=True):
                if isinstance(self._iterator, AsyncGenerator):
                    await self._iterator.aclose()
                if self._spent is not None:
                    # Before it can be had by another: httpcore finds it closed, and opens a new one.
                    await self._spent.aclose()
                await self._response.aclose()
        finally:
            self._channel.ended()

    def __del__(self) -> None:
        if self._open:
            self._channel.abandon(self._response)
            warnings.warn(
                f"a response from {self._progress.peer} was neither read to its end nor closed",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


class SyncBody:
    """The body of a response to synchronous code, as it comes."""

    __slots__ = ("_bound", "_by", "_channel", "_iterator", "_open", "_progress", "_response", "_spent")

    def __init__(
        self,
        channel: SyncFallbackChannel,
        response: httpcore.Response,
        progress: Progress,
        bound: Bound,
        body_by: float | None,
        spent: httpcore.NetworkStream | None,
    ) -> None:
        self._channel = channel
        self._response = response
        self._iterator: Iterator[bytes] | None = None
        self._progress = progress
        self._bound = bound
        self._by = body_by
        self._open = True
        self._spent = spent

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._response.stream)  # type: ignore[arg-type]
        try:
            with self._bound.until(self._by), self._progress.mapping():
                return next(self._iterator)
        except BaseException:
            # Whatever ends the body, its end included.
            self.close()
            raise

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            if self._spent is not None:
                # Before it can be had by another: httpcore finds it closed, and opens a new one.
                self._spent.close()
            self._response.close()
        finally:
            self._channel.ended()

    def __del__(self) -> None:
        if self._open:
            self.close()
            warnings.warn(
                f"a response from {self._progress.peer} was neither read to its end nor closed",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
