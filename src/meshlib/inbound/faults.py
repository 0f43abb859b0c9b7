"""Faults injected before the application."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.inbound.denials import FAULT, deny
from meshlib.inbound.effects import Pause, Step
from meshlib.plan.inboundfaults import InboundFaults
from meshlib.policy.arriving import Arriving

__all__ = ["inject"]


def inject(faults: InboundFaults, arriving: Arriving, random: Callable[[], float]) -> Step:
    """The first fault whose match holds: a delay, then an abort, each for its share."""
    fault = faults.fitting(arriving)
    if fault is None:
        return None
    if fault.delay and random() < fault.delay_share:
        yield Pause(fault.delay)
    if fault.abort_status and random() < fault.abort_share:
        return deny(fault.abort_status, FAULT, "a fault was injected", "a fault of an InboundPolicy was injected")
    return None
