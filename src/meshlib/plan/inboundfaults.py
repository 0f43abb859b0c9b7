"""Compiling the faults of InboundPolicies."""

from __future__ import annotations

__all__ = ["InboundFaults"]


class InboundFaults:
    """In order; the first that matches."""
