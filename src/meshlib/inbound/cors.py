"""Cross-origin requests, by the `corsPolicy` of VirtualServices for this service."""

from __future__ import annotations

from meshlib.inbound.denials import Denial, Permit
from meshlib.plan.cors import Cors
from meshlib.policy.arriving import Arriving

__all__ = ["preflight"]


def preflight(cors: Cors, arriving: Arriving, permit: Permit) -> Denial | None:
    """The answer to a preflight; for another cross-origin request `permit` gets the headers of the response."""
    return None
