"""Compiling concurrency, priority and overload of InboundPolicies."""

from __future__ import annotations

from meshlib.policy.overload import Load
from meshlib.resources import InboundPolicySpec
from meshlib.state.inbound import InboundState

__all__ = ["load_of"]


def load_of(policy: InboundPolicySpec, state: InboundState) -> Load | None:
    """None when the policy says nothing of it."""
    return None
