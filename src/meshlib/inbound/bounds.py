"""What is too much of a request."""

from __future__ import annotations

from meshlib.inbound.denials import Denial
from meshlib.policy.arriving import Arriving
from meshlib.resources import RequestBounds

__all__ = ["fault_of"]


def fault_of(bounds: RequestBounds, arriving: Arriving) -> Denial | None:
    """Why a request is turned away for its size, None: it isn't."""
    return None
