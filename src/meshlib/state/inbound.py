"""What was observed of requests coming in; survives a plan swap."""

from __future__ import annotations

__all__ = ["InboundState"]


class InboundState:
    """One process's own."""
