"""Virtual time: what is to happen, in order."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

from meshlib.testing.clock import ManualClock

__all__ = ["Event", "Timeline"]


class Event:
    """Something that will happen unless it is cancelled."""

    __slots__ = ("_action",)

    def __init__(self, action: Callable[[], object]) -> None:
        self._action: Callable[[], object] | None = action

    def cancel(self) -> None:
        """See to it that it doesn't happen."""
        self._action = None

    def happen(self) -> None:
        """Do it, once, unless it was cancelled."""
        action, self._action = self._action, None
        if action is not None:
            action()


class Timeline:
    """Events by their instants; those of one instant happen in the order they were planned in. Nothing sleeps.

    Attributes:
        clock: moves to each event's instant as it happens.
    """

    __slots__ = ("_heap", "_order", "clock")

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._heap: list[tuple[float, int, Event]] = []
        self._order = itertools.count()

    def at(self, instant: float, action: Callable[[], object]) -> Event:
        """Plan `action` for an instant in seconds; one that has passed means now, one at infinity never comes."""
        event = Event(action)
        if instant < math.inf:
            heapq.heappush(self._heap, (max(instant, self.clock.now), next(self._order), event))
        return event

    def after(self, seconds: float, action: Callable[[], object]) -> Event:
        """Plan `action` for `seconds` from now."""
        return self.at(self.clock.now + seconds, action)

    def run(self, until: float = math.inf) -> None:
        """Let everything happen that is planned for up to `until` (seconds), and what it plans in turn."""
        while self._heap and self._heap[0][0] <= until:
            instant, _, event = heapq.heappop(self._heap)
            self.clock.now = instant
            event.happen()
        if until < math.inf:
            self.clock.now = max(self.clock.now, until)
