"""Compiling RequestAuthentications."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.policy.tokens import TokenRules
from meshlib.resources import RequestAuthenticationSpec
from meshlib.state.inbound import InboundState

__all__ = ["tokens_of"]


def tokens_of(specs: Sequence[RequestAuthenticationSpec], state: InboundState) -> TokenRules | None:
    """None without any."""
    return None
