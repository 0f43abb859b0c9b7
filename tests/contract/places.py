"""Every registry meshlib has, each made the same way: a place that several `Registry` objects can open.

Most take their clock from the test. Consul has its own, so there time passes by waiting, and everything lasts a third.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meshlib.registries.base import Registry
from meshlib.registries.consul.address import consul_settings
from meshlib.registries.consul.client import ConsulClient
from meshlib.registries.consul.registry import ConsulRegistry
from meshlib.registries.file import FileRegistry
from meshlib.registries.memory import MemoryRegistry
from meshlib.registries.sqlite import SQLiteRegistry


class Place:
    """Where one registry lives.

    Attributes:
        now: the clock of every registry opened here, in seconds.
        ttl: of leases that are to run out.
        rounds: how many thirds of a ttl pass until a lease is erased, or the registry has forgotten it otherwise.
        keeps_time: whether the registry has a clock of its own, by which leases run out though nobody renews any.
        open: another Registry object on the same place, as another process would have.
    """

    ttl = 9.0
    rounds = 50
    keeps_time = False

    def __init__(self, make: Callable[[Callable[[], float]], Callable[[], Any]]) -> None:
        self.now = 1_000_000.0
        self._make = make(lambda: self.now)

    def open(self) -> Registry:
        registry: Registry = self._make()
        return registry

    async def passes(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class ConsulPlace(Place):
    """An agent, of which this place has the keys beneath a prefix, and all services."""

    ttl = 3.0
    rounds = 4
    keeps_time = True

    def __init__(self, url: str) -> None:
        settings = consul_settings(f"{url}?watch=*&prefix=contract-{os.getpid()}-{next(_numbers)}", {})
        super().__init__(lambda _: lambda: ConsulRegistry(ConsulClient(settings)))

    async def passes(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 3)


_numbers = itertools.count()


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
