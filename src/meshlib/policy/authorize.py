"""AuthorizationPolicy, compiled: who may do what."""

from __future__ import annotations

__all__ = ["Authorization"]


class Authorization:
    """The AuthorizationPolicies of one process."""
