"""What was observed of requests coming in; survives a plan swap."""

from __future__ import annotations

from meshlib.state.buckets import BucketStore
from meshlib.state.tokens import TokenState

__all__ = ["InboundState"]


class InboundState:
    """One process's own.

    Attributes:
        buckets: of its rate limits.
        tokens: the keys of issuers, and what was verified with them.
    """

    def __init__(self) -> None:
        self.buckets = BucketStore()
        self.tokens = TokenState()
