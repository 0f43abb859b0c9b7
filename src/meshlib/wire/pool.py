"""The connections of one channel: who is idle, how many are out."""

from __future__ import annotations

import threading
import time
from typing import Generic, Protocol, TypeVar

__all__ = ["Pool", "Pooled"]


class Pooled(Protocol):
    """What a pool needs of a connection.

    Attributes:
        requests: how many requests it has carried.
        idle_since: monotonic instant of its last return.
    """

    requests: int
    idle_since: float

    def usable(self) -> bool:
        """Whether the peer has, as far as can be seen, kept it open and silent."""
        ...

    def close(self) -> None:
        """Close it at once and tell the pool by `gone`; a second time does nothing."""
        ...


ConnectionT = TypeVar("ConnectionT", bound=Pooled)


class Pool(Generic[ConnectionT]):
    """Kept-alive connections, last in first out. Thread-safe: decides under its lock, acts outside.

    Args:
        idle_timeout: seconds after which an idle connection is not used again.
        max_requests: requests one connection may carry, 0 for no limit.
    """

    __slots__ = ("_closed", "_idle", "_idle_timeout", "_lock", "_max_requests", "_total")

    def __init__(self, idle_timeout: float, max_requests: int) -> None:
        self._idle_timeout = idle_timeout
        self._max_requests = max_requests
        self._idle: list[ConnectionT] = []
        self._total = 0
        self._closed = False
        # Reentrant, for a forgotten body may be collected, and close its connection, while we hold it.
        self._lock = threading.RLock()

    @property
    def idle(self) -> int:
        """Connections that wait for work."""
        return len(self._idle)

    @property
    def busy(self) -> int:
        """Connections at work or being opened."""
        with self._lock:
            return self._total - len(self._idle)

    def take(self) -> ConnectionT | None:
        """The connection that came back last, if any is still fit for use."""
        while self._idle:
            with self._lock:
                if not self._idle:
                    break
                connection = self._idle.pop()
            if time.monotonic() - connection.idle_since < self._idle_timeout and connection.usable():
                return connection
            connection.close()
        return None

    def opening(self) -> None:
        """One more connection exists, or is about to."""
        with self._lock:
            self._total += 1

    def give(self, connection: ConnectionT) -> None:
        """The connection is free again: kept, or closed if it has served long enough."""
        now = connection.idle_since = time.monotonic()
        expired = None
        with self._lock:
            keep = not self._closed and (not self._max_requests or connection.requests < self._max_requests)
            if keep:
                self._idle.append(connection)
                # The oldest lies at the bottom; looking at one per return keeps up with any rate.
                if now - self._idle[0].idle_since >= self._idle_timeout:
                    expired = self._idle.pop(0)
        if expired is not None:
            expired.close()
        if not keep:
            connection.close()

    def gone(self, connection: ConnectionT | None) -> None:
        """The connection was closed, or could not be opened (None)."""
        with self._lock:
            self._total -= 1
            if connection is not None and connection in self._idle:
                self._idle.remove(connection)

    def close(self) -> None:
        """Close what is idle now, and what is busy when it comes back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
