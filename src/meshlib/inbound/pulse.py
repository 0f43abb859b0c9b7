"""The event loops that serve: how late they are, and when they have looked at what has come.

A handler that computes holds up its whole event loop. What comes meanwhile stands in the sockets' buffers, where no
queue sees it, and all of it is begun at the loop's next turn: then nothing can be given up for something that matters
more. So the mesh begins a further request only after the loop has looked again, once the requests of a turn have taken
longer than `SLICE`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from meshlib.inbound.effects import Queue
from meshlib.waiting import Flag, trio_here

__all__ = ["INTERVAL", "SLICE", "LoopPulse", "pulse_here", "wait_in_queue"]

SLICE = 0.001
"""Seconds of one turn in which requests are begun."""

MOST_AT_ONCE = 64
"""Requests begun in one turn out of the queue, while turns stay short."""

LOOK = 2
"""Turns until what came during one is in our queue: in the first the server reads it, in the second its tasks begin."""

INTERVAL = 0.05
"""Seconds between two looks at the loop's lateness."""

SMOOTHING = 0.3
"""Weight of one look."""

Give = Callable[[float, int], bool]


class LoopPulse:
    """One event loop's. All but `lag` is used on that loop alone.

    Args:
        soon: the loop's way to have something called at its next turn.
        later: its way to have something called after so many seconds.
        clock: monotonic seconds.

    Attributes:
        lag: seconds the loop is late; 0.0 when it is at rest.
    """

    __slots__ = (
        "_batch",
        "_begun",
        "_busy",
        "_clock",
        "_due",
        "_gives",
        "_later",
        "_soon",
        "_turns",
        "_watching",
        "lag",
    )

    def __init__(
        self,
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lag = 0.0
        self._soon = soon
        self._later = later
        self._clock = clock
        self._begun: float | None = None
        self._batch = 1
        self._gives: dict[Give, None] = {}
        self._turns = 0
        self._watching = False
        self._busy = False
        self._due = 0.0

    def spent(self, now: float) -> bool:
        """Whether requests have taken up this turn of the loop."""
        return self._begun is not None and now - self._begun > SLICE

    def begin(self, now: float) -> None:
        """A request is begun."""
        if self._begun is None:
            self._begun = now
            self._soon(self._turned)

    def soon(self, give: Give) -> None:
        """Have `give` called when the loop has looked."""
        if not self._gives:
            self._turns = LOOK
            self._soon(self._step)
        self._gives[give] = None

    def watch(self) -> None:
        """Measure how late the loop is, as long as requests come."""
        self._busy = True
        if not self._watching:
            self._watching = True
            self._look()

    def _turned(self) -> None:
        assert self._begun is not None
        if self._clock() - self._begun > SLICE:
            self._batch = 1
            self._turns = LOOK
        else:
            self._batch = min(self._batch * 2, MOST_AT_ONCE)
        self._begun = None

    def _step(self) -> None:
        if self.spent(self._clock()):  # much may have come meanwhile
            self._turns = LOOK
        if self._turns:
            self._turns -= 1
            self._soon(self._step)
            return
        gives, self._gives = self._gives, {}
        now = self._clock()
        for give in gives:
            if give(now, self._batch):
                self.soon(give)

    def _look(self) -> None:
        self._busy = False
        self._due = self._clock() + INTERVAL
        self._later(INTERVAL, self._late)

    def _late(self) -> None:
        late = max(0.0, self._clock() - self._due)
        self.lag += SMOOTHING * (late - self.lag)
        if self._busy:
            self._look()
        else:
            self._watching = False
            self.lag = 0.0


class _Here(threading.local):
    """The loop that ran last in this thread, and its pulse."""

    loop: object = None
    pulse: LoopPulse | None = None


_here = _Here()


def pulse_here() -> LoopPulse | None:
    """The pulse of the event loop that runs here; None: there is none."""
    loop: Any
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _on_trio()
    if _here.loop is not loop:
        _here.loop, _here.pulse = loop, LoopPulse(loop.call_soon, loop.call_later)
    return _here.pulse


def _on_trio() -> LoopPulse | None:
    lowlevel = trio_here()
    if lowlevel is None:
        return None
    token = lowlevel.current_trio_token()
    if _here.loop is not token:

        def later(seconds: float, call: Callable[[], None]) -> None:
            async def wait() -> None:
                import trio

                await trio.sleep(seconds)
                call()

            lowlevel.spawn_system_task(wait)

        _here.loop, _here.pulse = token, LoopPulse(token.run_sync_soon, later)
    return _here.pulse


async def wait_in_queue(effect: Queue) -> None:
    """Perform `Queue` on the event loop that runs here."""
    waiter = effect.waiter
    if trio_here() is not None:
        await _wait_on_trio(effect)
        return
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()
    home = threading.get_ident()

    def settle() -> None:
        if not woken.done():
            woken.set_result(None)

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and who waited with it
            if threading.get_ident() == home:
                settle()
            else:
                loop.call_soon_threadsafe(settle)

    waiter.wake = wake
    if waiter.over:  # before anybody could be woken
        return
    timer = loop.call_later(effect.seconds, settle)
    try:
        await woken
    finally:
        timer.cancel()


async def _wait_on_trio(effect: Queue) -> None:
    flag = Flag()
    effect.waiter.wake = flag.set
    if not effect.waiter.over:
        await flag.sleep(effect.seconds)
