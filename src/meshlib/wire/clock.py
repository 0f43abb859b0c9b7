"""Bounds in seconds and bounds as instants, brought together."""

from __future__ import annotations

import time

from meshlib.wire.message import Timing

__all__ = ["connect_by", "seconds_until", "soonest"]


def soonest(seconds: float | None, instant: float | None) -> float | None:
    """The earlier of `seconds` from now and `instant`, as a monotonic instant; None if neither bounds anything."""
    if seconds is None:
        return instant
    after = time.monotonic() + seconds
    return after if instant is None or after < instant else instant


def connect_by(timing: Timing) -> float | None:
    """Monotonic instant by which a connection must be open: no later than the response head is due."""
    return soonest(timing.connect, timing.head_by)


def seconds_until(instant: float) -> float:
    """Seconds from now to `instant`, 0 if it has passed."""
    return max(instant - time.monotonic(), 0)
