"""What was observed of one cluster as a whole."""

from __future__ import annotations

from array import array
from threading import Lock
from typing import NamedTuple

from meshlib.state.breaker import CircuitBreaker
from meshlib.state.budget import RetryBudget
from meshlib.state.endpoint import Limit
from meshlib.state.outlier import Outliers

__all__ = ["ClusterState", "HashTable", "Latencies"]

SAMPLES = 512
FRESH = 3.0


class Latencies:
    """The last 512 latencies, and a percentile of them that is computed anew every 3 s (Finagle's BackupRequest)."""

    __slots__ = ("_at", "_computed", "_lock", "_percent", "_samples", "_value")

    def __init__(self) -> None:
        self._lock = Lock()
        self._samples: list[float] = []
        self._at = 0
        self._computed = -FRESH
        self._percent = 0.0
        self._value: float | None = None

    def add(self, seconds: float) -> None:
        """Note the latency of a good attempt."""
        with self._lock:
            if len(self._samples) < SAMPLES:
                self._samples.append(seconds)
            else:
                self._samples[self._at] = seconds
                self._at = (self._at + 1) % SAMPLES

    def percentile(self, percent: float, now: float, least: int = 100) -> float | None:
        """The percentile in seconds, or None while there are fewer than `least` samples."""
        with self._lock:
            if now - self._computed >= FRESH or percent != self._percent:
                count = len(self._samples)
                self._computed = now
                self._percent = percent
                enough = count >= least
                self._value = sorted(self._samples)[min(count - 1, int(count * percent / 100))] if enough else None
            return self._value


class HashTable(NamedTuple):
    """What a key of consistent hashing is looked up in.

    Attributes:
        made_of: the algorithm, its size, the addresses and their weights: what is made of the same is the same.
        points: of a ring, ascending; empty for a table.
        owners: the index among the addresses of whom each point, or place of the table, belongs to.
    """

    made_of: tuple[object, ...]
    points: array[int]
    owners: array[int]


class ClusterState:
    """Breaker, budget, limits and latencies of one cluster; survives a plan swap.

    Attributes:
        tables: of consistent hashing, by the cluster whose endpoints they hold, so that a new plan for the same
            endpoints needn't make them anew. Touched by whoever compiles plans only.
    """

    __slots__ = ("breaker", "budget", "hedges", "latencies", "name", "outliers", "requests", "retries", "tables")

    def __init__(self, name: str) -> None:
        self.name = name
        self.breaker = CircuitBreaker(name)
        self.budget = RetryBudget()
        self.hedges = RetryBudget()
        self.latencies = Latencies()
        self.outliers = Outliers()
        self.requests = Limit()
        self.retries = Limit()
        self.tables: dict[str, HashTable] = {}
