"""Which requests an external authorizer can be asked about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meshlib.policy.arriving import Arriving
from meshlib.policy.hosts import host_fault
from meshlib.policy.paths import mounting_fault

__all__ = ["CHECK_HEADER", "MOST_CHECKS", "Unaskable", "depth_of", "unaskable"]

CHECK_HEADER = b"x-meshlib-check"
"""How deep a check is: 1 for one of a request, 2 for one of a check, and so on."""

MOST_CHECKS = 3
"""Checks of checks of checks. Two services that are each other's authorizers would ask for ever."""


class Unaskable(NamedTuple):
    """Why a request is refused without asking; `status` is that of the answer."""

    status: int
    why: str


def unaskable(arriving: Arriving) -> Unaskable | None:
    """Why nobody is asked about a request, None: it can be asked about.

    An authorizer is asked about one path and one host. A request of which the application might read others is refused,
    also where the authorizer fails open: it is the caller's doing.
    """
    if (depth := depth_of(arriving)) >= MOST_CHECKS:
        return Unaskable(403, f"it is itself a check, {depth} deep: do authorizers ask each other?")
    if fault := host_fault(arriving):
        return Unaskable(400, fault)
    reading = arriving.reading
    if fault := reading.fault or mounting_fault(arriving.raw_headers):
        return Unaskable(400, fault)
    if len(reading.permitting) > 1:
        return Unaskable(400, f"its path can be read in {len(reading.permitting)} ways")
    return None


def depth_of(arriving: Arriving) -> int:
    """How deep a check the request is, 0 when it is none. Who makes it up is only refused sooner."""
    said: Sequence[bytes] = arriving.values(CHECK_HEADER)
    if not said:
        return 0
    return int(said[0]) if len(said) == 1 and len(said[0]) == 1 and said[0].isdigit() else MOST_CHECKS
