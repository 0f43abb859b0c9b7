"""Rate limits: this process's own, and those it shares with others."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.inbound.denials import Permit
from meshlib.inbound.effects import Step
from meshlib.policy.arriving import Arriving
from meshlib.policy.ratelimit import RateLimits

__all__ = ["limit"]


def limit(limits: RateLimits, arriving: Arriving, permit: Permit, clock: Callable[[], float]) -> Step:
    """The step of rate limits."""
    return None
    yield
