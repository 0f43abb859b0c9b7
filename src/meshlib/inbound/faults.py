"""Faults injected before the application."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.inbound.effects import Step
from meshlib.plan.inboundfaults import InboundFaults
from meshlib.policy.arriving import Arriving

__all__ = ["inject"]


def inject(faults: InboundFaults, arriving: Arriving, random: Callable[[], float]) -> Step:
    """The first fault whose match holds: a delay, then an abort, each for its share."""
    return None
    yield
