"""Overload: what is shed at once, and the place a request takes while it is served."""

from __future__ import annotations

import functools

from meshlib.context import DEADLINE_HEADER, OVERLOADED_HEADER, PRIORITIES
from meshlib.inbound.clocks import Clocks, Pulse
from meshlib.inbound.denials import OVERLOADED, Denial, Permit, deny
from meshlib.inbound.effects import Queue, Step, Stepped
from meshlib.policy.arriving import Arriving
from meshlib.policy.overload import Load, shed_share
from meshlib.state.load import Places

__all__ = ["place", "shed"]

BACK_AFTER = 1, 3
"""Whole seconds of `Retry-After`: this, and up to so many more, by chance, so that callers don't come back together."""

DETAIL = "this service has more to do than it can manage: try again later"


def shed(load: Load, arriving: Arriving, permit: Permit, clocks: Clocks) -> Denial | None:
    """Find the request's priority, and turn it away if signals of overload say so.

    Args:
        load: of the process.
        arriving: the request.
        permit: of it; gets the priority.
        clocks: of the driver.
    """
    level = load.level(arriving)
    permit.priority = PRIORITIES[level]
    if load.lag is None and load.queue_time is None:
        return None
    pulse = clocks.pulse
    lag = 0.0
    if pulse is not None and load.lag is not None:
        pulse.watch()
        lag = pulse.lag
    pressure, says = load.pressure(level, lag, arriving, clocks.now(), clocks.wall())
    share = shed_share(level, pressure)
    if share > 0.0 and clocks.random() < share:
        return _overloaded(level, says, clocks)
    return None


def place(load: Load, arriving: Arriving, permit: Permit, clocks: Clocks) -> Stepped:
    """Take a place among the requests served at one time, or wait for one in a short queue.

    On an event loop that has been busy, a request waits even for a place that is free, until the loop has looked at who
    else has come: so a request that matters more doesn't stand behind it in the server's sockets, where nobody sees it.

    Args:
        load: of the process.
        arriving: the request.
        permit: of it, with its priority; gives the place back when the request has ended.
        clocks: of the driver.
    """
    places = load.places
    if places is None:
        return None
    now, pulse = clocks.now(), clocks.pulse
    hold = pulse is not None and pulse.spent(now)
    inside = 0 if hold else places.enter_free(load.bounds)
    if not inside:
        return _queued(load, places, arriving, permit, clocks, now, hold=hold)
    _begin(places, permit, pulse, now, inside)
    return None


def _queued(
    load: Load, places: Places, arriving: Arriving, permit: Permit, clocks: Clocks, now: float, *, hold: bool
) -> Step:
    """Wait for a place, as long as the policy and the caller let it."""
    pulse = clocks.pulse
    level = PRIORITIES.index(permit.priority)
    seconds = _patience(arriving, load.bounds.wait)
    inside = places.enter(level, now, load.bounds, seconds, hold=hold)
    if not isinstance(inside, int):
        waiter = inside
        if pulse is not None:
            pulse.soon(places.give)
        try:
            yield Queue(waiter, seconds)
        except BaseException:
            if places.settle(waiter, clocks.now()):
                _go(places, pulse, clocks.now())
            raise
        now = clocks.now()
        inside = places.settle(waiter, now)
    if not inside:
        return _overloaded(level, "there is no place, and no more waiting for one", clocks)
    _begin(places, permit, pulse, now, inside)
    return None


def _begin(places: Places, permit: Permit, pulse: Pulse | None, now: float, inside: int) -> None:
    """A request has its place, until it ends."""
    if pulse is not None:
        pulse.begin(now)

    def end(status: int | None, at: float) -> None:
        # A failure may be fast, and a denial is; a WebSocket lasts as long as its users like. None of these says how
        # long a request takes.
        if status is not None and 200 <= status < 400:
            places.sample(at - now, inside, at)
        _go(places, pulse, at)

    permit.on_end(end)


def _go(places: Places, pulse: Pulse | None, now: float) -> None:
    """Leave a place to those who wait."""
    if not places.leave():
        return
    if pulse is not None:
        pulse.soon(places.give)
    else:
        places.give(now, places.waiting)


def _patience(arriving: Arriving, wait: float) -> float:
    """Seconds a request may wait for a place: nobody waits for longer than its caller does."""
    said = arriving.header(DEADLINE_HEADER)
    if said is None or not said.isdecimal() or len(said) > len("86400000"):
        return wait
    return min(wait, int(said) / 1000)


def _overloaded(level: int, says: str, clocks: Clocks) -> Denial:
    least, more = BACK_AFTER
    return _denial(level, says, least + int(clocks.random() * (more + 1)))


@functools.cache  # a few dozen, and made when there is no time to lose
def _denial(level: int, says: str, seconds: int) -> Denial:
    headers = ((b"retry-after", b"%d" % seconds), (OVERLOADED_HEADER, b"true"))
    return deny(503, OVERLOADED, DETAIL, f"overload: {PRIORITIES[level]} is turned away: {says}", headers)
