"""Overload, compiled: priorities, concurrency, signals."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.context import PRIORITIES, PRIORITY_HEADER
from meshlib.policy.arriving import Arriving
from meshlib.policy.match import Match
from meshlib.state.load import PlaceBounds, Places

__all__ = ["DEFAULT_LEVEL", "MOST_QUEUE_TIME", "Load", "shed_share", "time_in_queue"]

DEFAULT_LEVEL = PRIORITIES.index("default")

RAMPS = ((3.0, 6.0), (1.5, 3.0), (1.0, 1.5))
"""By priority: at how many times its threshold a signal begins to turn requests away, and at how many it takes all.
Those of one priority are all turned away before the next has to go."""

MOST_QUEUE_TIME = 60.0
"""Seconds; a request that claims to have waited longer, or to come from the future, comes from a clock that is off."""

LONGEST_START = 32
"""Bytes of `x-request-start`."""

REQUEST_START = b"x-request-start"
LEVEL_OF = {name.encode(): level for level, name in enumerate(PRIORITIES)}


class Load:
    """What one process can serve at one time, and what goes first when it is more. Immutable.

    Attributes:
        places: of the process; None: concurrency has no limit.
        bounds: of the places.
        lag: seconds the event loop may be late; None: it may.
        queue_time: seconds a request may have waited before it is served; None: it may.
    """

    __slots__ = ("_identified", "_rules", "bounds", "lag", "places", "queue_time")

    def __init__(
        self,
        rules: Sequence[tuple[Sequence[Match], int]] = (),
        *,
        identified: bool = False,
        places: Places | None = None,
        bounds: PlaceBounds | None = None,
        lag: float | None = None,
        queue_time: float | None = None,
    ) -> None:
        self._rules = tuple((tuple(matches), level) for matches, level in rules)
        self._identified = identified
        self.places = places
        self.bounds = bounds or PlaceBounds()
        self.lag = lag
        self.queue_time = queue_time

    def level(self, arriving: Arriving) -> int:
        """The priority of a request by number: its own, if its caller is believed, or that of the first rule."""
        for name, value in arriving.raw_headers:
            if len(name) == len(PRIORITY_HEADER) and name == PRIORITY_HEADER:
                level = LEVEL_OF.get(value)
                if level is not None and (not self._identified or arriving.principal):
                    return level
                break
        for matches, level in self._rules:
            for match in matches:
                if match.holds(arriving):
                    return level
        return DEFAULT_LEVEL

    def pressure(self, level: int, lag: float, arriving: Arriving, now: float, wall: float) -> tuple[float, str]:
        """The signal that is furthest beyond its threshold.

        Args:
            level: priority of the request.
            lag: seconds the event loop is late.
            arriving: the request.
            now: monotonic seconds.
            wall: seconds since 1970.

        Returns:
            How many times its threshold, and in words.
        """
        found, says = 0.0, ""
        if self.lag is not None:
            found, says = lag / self.lag, "the event loop is late"
        if self.queue_time is not None:
            waited = time_in_queue(arriving.header(REQUEST_START), wall) / self.queue_time
            if waited > found:
                found, says = waited, "it has waited before it came here"
            ours = self.places.queue_time(level, now) / self.queue_time if self.places is not None else 0.0
            if ours > found:
                found, says = ours, "requests wait for a place"
        return found, says


def shed_share(level: int, pressure: float) -> float:
    """Which share of the requests of a priority is turned away at a pressure: 0 to 1."""
    begins, ends = RAMPS[level]
    return min(1.0, max(0.0, (pressure - begins) / (ends - begins)))


def time_in_queue(start: str | None, wall: float) -> float:
    """Seconds since a proxy before us got the request, by its `x-request-start`; 0.0 when it says nothing sensible.

    Proxies write seconds (nginx: `t=1700000000.123`), milliseconds (Heroku: `1700000000123`) or microseconds (Apache:
    `t=1700000000123456`) since 1970; which one it is shows by its size.
    """
    if start is None or len(start) > LONGEST_START:
        return 0.0
    text = start.removeprefix("t=")
    whole, _, fraction = text.partition(".")
    if not (whole.isascii() and whole.isdigit() and (not fraction or (fraction.isascii() and fraction.isdigit()))):
        return 0.0
    began = float(text)
    for unit in (1.0, 1e3, 1e6):
        waited = wall - began / unit
        if 0.0 <= waited <= MOST_QUEUE_TIME:
            return waited
    return 0.0
