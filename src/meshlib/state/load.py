"""How many requests are inside, who waits for a place, and what limit the latency allows. Safe for threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from meshlib.state.adaptive import AdaptiveBounds, AdaptiveLimit

__all__ = ["LEVELS", "UNBOUNDED", "LoadState", "PlaceBounds", "Places", "Waiter"]

LEVELS = 3
"""Priorities, by number: 0 critical, 1 default, 2 best-effort."""

UNBOUNDED = 2**32 - 1

SMOOTHING = 0.2
"""Weight of one wait in a level's smoothed queue time."""

FADES = 1.0
"""Seconds in which a queue time that nobody has seen again halves."""


class PlaceBounds(NamedTuple):
    """What the plan says of concurrency.

    Attributes:
        most: requests served at one time, whatever latency allows.
        adaptive: of the limit that is found; None: `most` is the limit.
        pending: requests that may wait.
        wait: seconds one may wait.
    """

    most: int = UNBOUNDED
    adaptive: AdaptiveBounds | None = None
    pending: int = 100
    wait: float = 0.1


class Waiter:
    """A request in the queue.

    The driver sets `wake` and then looks at `over`: it may have been decided before anybody could be woken.

    Attributes:
        wake: called once, from any thread, when it is decided; it must not block.
        granted: whether it has a place.
        over: whether it is decided: it has a place, or lost its turn to somebody more important.
        level: its priority by number.
        since, until: monotonic seconds of its wait.
    """

    __slots__ = ("granted", "level", "over", "since", "until", "wake")

    def __init__(self, level: int, since: float, until: float) -> None:
        self.wake: Callable[[], object] | None = None
        self.granted = False
        self.over = False
        self.level = level
        self.since = since
        self.until = until


class Places:
    """The places of the requests that are served at one time, and the queue before them.

    The queue gives by priority. Within one the eldest goes first, until there has always been somebody waiting for as
    long as a request may wait: from then on it is the newest, whose caller is the likeliest to be still there
    (Facebook's adaptive LIFO). What is over its time, or comes when the queue is full of what is no less important, is
    turned away.
    """

    __slots__ = ("_lock", "_queued_since", "_queues", "_times", "adaptive", "bounds", "inside", "waiting")

    def __init__(self) -> None:
        self.inside = 0
        self.waiting = 0
        self.bounds = PlaceBounds()
        """Of the plan that the last request came under."""
        self.adaptive = AdaptiveLimit()
        self._lock = Lock()
        self._queues: tuple[OrderedDict[Waiter, None], ...] = tuple(OrderedDict() for _ in range(LEVELS))
        self._queued_since = [0.0] * LEVELS
        self._times = [(0.0, 0.0)] * LEVELS

    @property
    def limit(self) -> int:
        """Requests served at one time now."""
        return self._limit(LEVELS - 1)

    def _limit(self, level: int) -> int:
        bounds = self.bounds
        if bounds.adaptive is None:
            return bounds.most
        # The critical don't pay for measuring: there are few of them.
        return min(bounds.most, self.adaptive.limit(bounds.adaptive, lowered=level > 0))

    def enter_free(self, bounds: PlaceBounds) -> int:
        """Take a place that is free, if nobody waits: how many are inside with it, 0: there is none."""
        with self._lock:
            self.bounds = bounds
            if self.waiting or self.inside >= (bounds.most if bounds.adaptive is None else self.limit):
                return 0
            self.inside += 1
            return self.inside

    def enter(self, level: int, now: float, bounds: PlaceBounds, seconds: float, *, hold: bool = False) -> Waiter | int:
        """Take a place, or stand in the queue for one.

        Args:
            level: priority by number.
            now: monotonic seconds.
            bounds: of the plan in force.
            seconds: it may wait at most.
            hold: whether to queue even if there is a place, since the event loop has to look at who else has come.

        Returns:
            How many are inside with it; 0: it is turned away; a waiter: it is in the queue.
        """
        loser = None
        with self._lock:
            self.bounds = bounds
            if not hold and self.inside < self._limit(level) and not any(self._queues[: level + 1]):
                self.inside += 1
                return self.inside
            if seconds <= 0:
                return 0
            if self.waiting >= bounds.pending:
                loser = self._least(level)
                if loser is None:
                    return 0
                self._drop(loser, now)
            if not self._queues[level]:
                self._queued_since[level] = now
            waiter = Waiter(level, now, now + seconds)
            self._queues[level][waiter] = None
            self.waiting += 1
        if loser is not None:
            _wake(loser)
        return waiter

    def settle(self, waiter: Waiter, now: float) -> int:
        """The waiter waits no longer: how many are inside with it, 0: it has no place."""
        with self._lock:
            if waiter.granted:
                return self.inside
            if not waiter.over:
                self._drop(waiter, now)
            return 0

    def leave(self) -> bool:
        """Somebody goes. Whether `give` has somebody to give to."""
        with self._lock:
            self.inside -= 1
            return self.waiting > 0

    def give(self, now: float, most: int) -> bool:
        """Give what places there are to those who wait, at most `most`; whether there is more to give."""
        woken = []
        with self._lock:
            while most > 0 and (waiter := self._next(now)) is not None:
                if waiter.until >= now:
                    self.inside += 1
                    waiter.granted = True
                    most -= 1
                self._drop(waiter, now)
                woken.append(waiter)
            more = self._next(now) is not None
        for waiter in woken:
            _wake(waiter)
        return more

    def sample(self, seconds: float, inside: int, now: float) -> None:
        """A request that had a place was answered well after `seconds`; so many were inside when it began."""
        bounds = self.bounds.adaptive
        if bounds is not None:
            with self._lock:
                self.adaptive.sample(seconds, inside, now, bounds)

    def queue_time(self, level: int, now: float) -> float:
        """Seconds that requests of this priority, or a higher one, wait for a place now; smoothed."""
        return max(
            seconds if now <= at else seconds * 0.5 ** ((now - at) / FADES) for seconds, at in self._times[: level + 1]
        )

    def _next(self, now: float) -> Waiter | None:
        """Whose turn it is; None: nobody waits, or there is no place for who does."""
        if not self.waiting:
            return None
        level = next(level for level in range(LEVELS) if self._queues[level])
        if self.inside >= self._limit(level):
            return None
        queue = self._queues[level]
        return next(reversed(queue)) if now - self._queued_since[level] > self.bounds.wait else next(iter(queue))

    def _least(self, level: int) -> Waiter | None:
        """The newest of the lowest priority that waits, if that is lower than `level`."""
        for lower in range(LEVELS - 1, level, -1):
            if self._queues[lower]:
                return next(reversed(self._queues[lower]))
        return None

    def _drop(self, waiter: Waiter, now: float) -> None:
        """Take a waiter out of the queue."""
        waiter.over = True
        del self._queues[waiter.level][waiter]
        self.waiting -= 1
        before, at = self._times[waiter.level]
        if now > at:
            before *= 0.5 ** ((now - at) / FADES)
        self._times[waiter.level] = (before + SMOOTHING * (now - waiter.since - before), now)


class LoadState:
    """What is observed of this process's load."""

    __slots__ = ("places",)

    def __init__(self) -> None:
        self.places = Places()


def _wake(waiter: Waiter) -> None:
    wake = waiter.wake
    if wake is not None:
        wake()
