"""The registry in memory, for tests; `registry="memory:name"` opens it by name."""

from __future__ import annotations

from meshlib.registries.memory import MemoryRegistry

__all__ = ["MemoryRegistry"]
