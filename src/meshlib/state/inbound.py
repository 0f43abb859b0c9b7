"""What was observed of requests coming in; survives a plan swap."""

from __future__ import annotations

from meshlib.state.buckets import BucketStore
from meshlib.state.decisions import Decisions
from meshlib.state.load import LoadState
from meshlib.state.tokens import TokenState

__all__ = ["InboundState"]


class InboundState:
    """One process's own.

    Attributes:
        buckets: of its rate limits.
        decisions: what became of requests.
        load: how many requests are inside, and who waits.
        tokens: the keys of issuers, and what was verified with them.
    """

    def __init__(self) -> None:
        self.buckets = BucketStore()
        self.decisions = Decisions()
        self.load = LoadState()
        self.tokens = TokenState()
