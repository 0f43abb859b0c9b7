"""Compiling the rate limits of InboundPolicies."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.policy.ratelimit import RateLimits
from meshlib.resources import RateLimit
from meshlib.state.inbound import InboundState

__all__ = ["limits_of"]


def limits_of(limits: Sequence[RateLimit], state: InboundState) -> RateLimits | None:
    """None without any."""
    return None
