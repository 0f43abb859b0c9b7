"""Compiling AuthorizationPolicies."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.policy.authorize import Authorization
from meshlib.resources import Resource

__all__ = ["authorization_of"]


def authorization_of(policies: Sequence[Resource], aliases: Sequence[str]) -> Authorization | None:
    """What the AuthorizationPolicies that select one process say together; None: there are none.

    Args:
        policies: those that select it.
        aliases: trust domains that count as ours.
    """
    return None
