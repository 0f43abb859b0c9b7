"""A limit on concurrency found by measuring latency.

The latency that a request has with few others beside it is the *base*; now and then the limit is lowered for a moment
to measure it again. While the median stays within the base and a tolerance, the limit is raised as long as it is used
up; beyond that it is lowered in proportion. So it is Envoy's gradient (its `adaptive_concurrency` filter) with smaller
steps. docs/decisions/0018-overload.md compares it with Envoy's own and with Netflix's Gradient2.
"""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

__all__ = ["AdaptiveBounds", "AdaptiveLimit"]

TOLERANCE = 1.4
"""The median latency may be so many times the base. Envoy's buffer is 25 %, with more headroom elsewhere."""

WINDOW = 0.1
"""Seconds of samples at least for a look at the limit; Envoy's interval."""

SAMPLES = 50
"""For a look at the limit; fewer, and chance alone would lower it."""

BASE_SAMPLES, BASE_WANTED = 25, 100
"""For the base: as few as that where the lowered limit is used up, and so costs something; Envoy asks for 50."""

MOST_SAMPLES = 1000
"""Kept of one window."""

LOWEST = 0.7
"""Of the limit is left after one look, at least."""

STEP = 0.1
"""Share of the limit that is added in one look, but at least 1."""

PROBE_SHARE = 0.25
"""Of the limit, while the base is measured."""

FIRST_PROBE, LAST_PROBE = 1.0, 32.0
"""Seconds between measurements of the base, doubling: at the start the process may have been cold, or busy."""

BASE_SMOOTHING = 0.5
"""Weight of a new base against the one before."""


class AdaptiveBounds(NamedTuple):
    """What the plan says: the limit stays between `least` and `most`, and begins at `initial`."""

    least: int
    most: int
    initial: int


class AdaptiveLimit:
    """The limit and what it was found by. Not safe for threads: its owner has a lock."""

    __slots__ = ("_gap", "_peak", "_probe_at", "_probing", "_samples", "_value", "_window_from", "base")

    def __init__(self) -> None:
        self.base: float | None = None
        """Seconds a request takes with few others beside it; None: not measured yet."""
        self._value: float | None = None
        self._samples: list[float] = []
        self._peak = 0
        self._window_from = 0.0
        self._probing = True
        self._probe_at = 0.0
        self._gap = FIRST_PROBE

    def limit(self, bounds: AdaptiveBounds, *, lowered: bool = True) -> int:
        """Requests served at one time now; `lowered` for those that make way while the base is measured."""
        value = bounds.initial if self._value is None else min(max(self._value, bounds.least), bounds.most)
        if lowered and self._probing and self.base is not None:
            return max(bounds.least, int(value * PROBE_SHARE))
        return int(value)

    def sample(self, seconds: float, inside: int, now: float, bounds: AdaptiveBounds) -> None:
        """A request was answered well.

        Args:
            seconds: it took, without its wait in the queue.
            inside: requests served when it began, with it.
            now: monotonic seconds.
            bounds: of the plan in force.
        """
        if self._probing and inside > self.limit(bounds):
            return  # it began before the limit was lowered
        if len(self._samples) < MOST_SAMPLES:
            self._samples.append(seconds)
        self._peak = max(self._peak, inside)
        if self._probing:
            needed = BASE_SAMPLES if self._peak >= self.limit(bounds) else BASE_WANTED
            if len(self._samples) >= needed:
                self._rebase()
                self._probing = False
                self._probe_at = now + self._gap
                self._gap = min(self._gap * 2, LAST_PROBE)
                self._begin(now)
        elif now >= self._probe_at:
            self._probing = True
            self._begin(now)
        elif now - self._window_from >= WINDOW and len(self._samples) >= SAMPLES:
            self._adapt(bounds)
            self._begin(now)

    def _rebase(self) -> None:
        found = median(self._samples)
        self.base = found if self.base is None else self.base + (found - self.base) * BASE_SMOOTHING

    def _adapt(self, bounds: AdaptiveBounds) -> None:
        assert self.base is not None
        value = float(bounds.initial) if self._value is None else self._value
        if value <= bounds.least:
            self._rebase()  # as few as there can be are beside a request: what it takes now is the base
        gradient = TOLERANCE * self.base / max(median(self._samples), 1e-9)
        if gradient < 1:
            value *= max(LOWEST, gradient)
        elif self._peak >= int(value):  # what isn't used up needs no more
            value += max(1.0, STEP * value)
        self._value = min(max(value, bounds.least), bounds.most)

    def _begin(self, now: float) -> None:
        self._samples = []
        self._peak = 0
        self._window_from = now
