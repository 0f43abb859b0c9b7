"""Compiling the `corsPolicy` of VirtualServices whose host is this service."""

from __future__ import annotations

__all__ = ["Cors"]


class Cors:
    """Which origins may ask what."""
