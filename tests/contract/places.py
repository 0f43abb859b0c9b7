"""Every registry meshlib has, each made the same way: a place that several `Registry` objects can open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from meshlib.registries.base import Registry
from meshlib.registries.file import FileRegistry
from meshlib.registries.memory import MemoryRegistry
from meshlib.registries.sqlite import SQLiteRegistry


class Place:
    """Where one registry lives.

    Attributes:
        now: the clock of every registry opened here, in seconds; tests move it.
        open: another Registry object on the same place, as another process would have.
    """

    def __init__(self, make: Callable[[Callable[[], float]], Callable[[], Any]]) -> None:
        self.now = 1_000_000.0
        self._make = make(lambda: self.now)

    def open(self) -> Registry:
        registry: Registry = self._make()
        return registry


def _memory(path: Path, clock: Callable[[], float]) -> Callable[[], Any]:
    one = MemoryRegistry(clock=clock)
    return lambda: one


def _sqlite(path: Path, clock: Callable[[], float]) -> Callable[[], Any]:
    return lambda: SQLiteRegistry(path / "registry.db", clock)


def _file(path: Path, clock: Callable[[], float]) -> Callable[[], Any]:
    directory = path / "mesh"
    directory.mkdir()
    return lambda: FileRegistry(directory, clock)


PLACES = {"memory": _memory, "sqlite": _sqlite, "file": _file}
