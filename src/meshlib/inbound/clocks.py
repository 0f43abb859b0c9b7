"""What admission knows of time, chance and the event loop that serves. Pure: whoever drives it brings them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

__all__ = ["Clocks", "Pulse"]


class Pulse(Protocol):
    """The event loop that serves a request.

    Attributes:
        lag: seconds that it is late; smoothed.
    """

    lag: float

    def watch(self) -> None:
        """Measure `lag` as long as requests come."""

    def spent(self, now: float) -> bool:
        """Whether so much was done since the loop last looked for what has come, that it should look again first."""

    def begin(self, now: float) -> None:
        """A request is begun."""

    def soon(self, give: Callable[[float, int], bool]) -> None:
        """Have `give(now, most)` called when the loop has looked, and again as long as it says that there is more."""


class Clocks(NamedTuple):
    """What admission knows of time and chance.

    Attributes:
        now: monotonic seconds.
        wall: seconds since 1970, for tokens.
        random: uniform in [0, 1).
        pulse: of the event loop that serves; None in a thread.
    """

    now: Callable[[], float]
    wall: Callable[[], float]
    random: Callable[[], float]
    pulse: Pulse | None = None
