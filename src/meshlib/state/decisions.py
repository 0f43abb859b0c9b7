"""How often requests came in, or didn't, and by what."""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

__all__ = ["MOST_NAMES", "DecisionCount", "Decisions"]

MOST_NAMES = 500
"""Things counted apart; what else comes is counted as one. Names are those of documents, which come and go."""

OTHERS = "others"


class DecisionCount(NamedTuple):
    """How often one thing happened.

    Attributes:
        kind: `allowed`, `denied`, `dry-run`, `audit` or `uncounted`.
        code: the reason for a denial, "" of others.
        by: the policy, limit or authorizer it comes of, "" where none is named.
        times: how often, since the process began.
    """

    kind: str
    code: str
    by: str
    times: int


class Decisions:
    """Counts what became of requests coming in. Thread-safe."""

    __slots__ = ("_allowed", "_counts", "_lock")

    def __init__(self) -> None:
        self._lock = Lock()
        self._allowed = 0
        self._counts: dict[tuple[str, str, str], int] = {}

    def allow(self) -> None:
        """A request came in."""
        with self._lock:
            self._allowed += 1

    def count(self, kind: str, code: str = "", by: str = "") -> None:
        """Something else happened; see `DecisionCount`."""
        key = kind, code, by
        with self._lock:
            if key not in self._counts and len(self._counts) >= MOST_NAMES:
                key = kind, code, OTHERS
            self._counts[key] = self._counts.get(key, 0) + 1

    def counts(self) -> tuple[DecisionCount, ...]:
        """What was counted, by kind, code and name; nothing while nothing was."""
        with self._lock:
            counts = dict(self._counts)
            if self._allowed:
                counts["allowed", "", ""] = self._allowed
        return tuple(DecisionCount(*key, count) for key, count in sorted(counts.items()))
