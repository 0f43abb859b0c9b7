"""Compiling the faults of InboundPolicies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meshlib.plan.matches import compile_match
from meshlib.plan.route import Fault, compile_fault
from meshlib.policy.match import HeadView, Match
from meshlib.resources import InboundFault

__all__ = ["InboundFaults", "faults_of"]


class InboundFaults(NamedTuple):
    """In order; the first that matches counts. One without matches holds for every request."""

    faults: tuple[tuple[tuple[Match, ...], Fault], ...]

    def fitting(self, head: HeadView) -> Fault | None:
        """The fault for a request."""
        for matches, fault in self.faults:
            if not matches or any(match.holds(head) for match in matches):
                return fault
        return None


def faults_of(written: Sequence[InboundFault]) -> InboundFaults | None:
    """None when no request can meet one."""
    compiled = tuple(
        (tuple(compile_match(match) for match in one.match), compile_fault(one.fault) or Fault()) for one in written
    )
    return InboundFaults(compiled) if any(fault != Fault() for _, fault in compiled) else None
