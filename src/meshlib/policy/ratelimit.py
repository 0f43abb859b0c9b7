"""Rate limits, compiled."""

from __future__ import annotations

__all__ = ["RateLimits"]


class RateLimits:
    """Every limit that holds for one process."""
