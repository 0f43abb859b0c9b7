"""Overload: what is shed at once, and the place a request takes while it is served."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.inbound.denials import Denial, Permit
from meshlib.inbound.effects import Step
from meshlib.policy.arriving import Arriving
from meshlib.policy.overload import Load

__all__ = ["place", "shed"]


def shed(load: Load, arriving: Arriving, permit: Permit, now: float) -> Denial | None:
    """Find the request's priority, and turn it away if signals of overload say so."""
    return None


def place(load: Load, arriving: Arriving, permit: Permit, clock: Callable[[], float]) -> Step:
    """Take a place among the requests served at one time, or wait for one in a short queue."""
    return None
    yield
