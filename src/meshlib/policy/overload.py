"""Overload, compiled: priorities, concurrency, signals."""

from __future__ import annotations

__all__ = ["Load"]


class Load:
    """What one process can serve at one time, and what goes first when it is more."""
