"""Tokens of callers, by RequestAuthentication."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.inbound.denials import Permit
from meshlib.inbound.effects import Step
from meshlib.policy.arriving import Arriving
from meshlib.policy.tokens import TokenRules

__all__ = ["authenticate"]


def authenticate(rules: TokenRules, arriving: Arriving, permit: Permit, wall: Callable[[], float]) -> Step:
    """The step of tokens: `arriving` gets the claims of a good one, a bad one is refused, none is no fault."""
    return None
    yield
