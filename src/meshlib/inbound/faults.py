"""Faults injected before the application."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.inbound.denials import FAULT, deny
from meshlib.inbound.effects import Pause, Step, Stepped
from meshlib.plan.inboundfaults import InboundFaults
from meshlib.plan.route import Fault
from meshlib.policy.arriving import Arriving

__all__ = ["inject"]


def inject(faults: InboundFaults, arriving: Arriving, random: Callable[[], float]) -> Stepped:
    """The first fault whose match holds: a delay, then an abort, each for its share."""
    fault = faults.fitting(arriving)
    return None if fault is None else _injected(fault, random)


def _injected(fault: Fault, random: Callable[[], float]) -> Step:
    if fault.delay and random() < fault.delay_share:
        yield Pause(fault.delay)
    if fault.abort_status and random() < fault.abort_share:
        return deny(fault.abort_status, FAULT, "a fault was injected", "a fault of an InboundPolicy was injected")
    return None
