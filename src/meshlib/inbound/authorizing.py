"""Whether the caller may do what it asks: CUSTOM, then DENY, then ALLOW."""

from __future__ import annotations

from meshlib.inbound.denials import Permit
from meshlib.inbound.effects import Step
from meshlib.policy.arriving import Arriving
from meshlib.policy.authorize import Authorization

__all__ = ["authorize"]


def authorize(authorization: Authorization, arriving: Arriving, permit: Permit) -> Step:
    """The step of AuthorizationPolicies."""
    return None
    yield
