"""Circuit breakers in pybreaker's language: its listeners are told, its storages are shared.

A breaker decides in memory, on the call's path. What is slow, a storage such as Redis, is read and written here, beside
the calls: a breaker opened by one process is open in the others within half a second.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from meshlib.plan.plan import Plan
from meshlib.state.breaker import BreakerPolicy, BreakerState, CircuitBreaker

if TYPE_CHECKING:
    import pybreaker

__all__ = ["SYNC_INTERVAL", "BreakerBridge"]

log = logging.getLogger("meshlib.agent")

SYNC_INTERVAL = 0.5
"""Seconds between two looks at a shared storage."""

StorageFactory = Callable[[str], "pybreaker.CircuitBreakerStorage"]


class BreakerBridge:
    """Joins the clusters' breakers to pybreaker's listeners and storages.

    Args:
        listeners: told of every change of state and of every success and failure, where it happens: they must be quick.
        storage: makes the storage for a cluster's name; None: each breaker is its process's own.
    """

    def __init__(
        self, listeners: Sequence[pybreaker.CircuitBreakerListener] = (), storage: StorageFactory | None = None
    ) -> None:
        self._listeners = tuple(listeners)
        self._storage = storage
        self._links: dict[CircuitBreaker, Link] = {}

    def attach(self, plan: Plan) -> None:
        """Join the breakers of a plan that aren't joined yet, and part from those that are gone."""
        wanted = {cluster.state.breaker: cluster for cluster in plan.clusters.values() if cluster.breaker is not None}
        for gone in [breaker for breaker in self._links if breaker not in wanted]:
            self._links.pop(gone).part()
        for breaker, cluster in wanted.items():
            assert cluster.breaker is not None
            link = self._links.get(breaker)
            if link is None:
                self._links[breaker] = Link(breaker, cluster.breaker, self._listeners, self._storage)
            else:
                link.policy = cluster.breaker

    async def run(self) -> None:
        """Keep the storages and the breakers alike, for ever."""
        while self._storage is not None:
            await asyncio.sleep(SYNC_INTERVAL)
            done: concurrent.futures.Future[None] = concurrent.futures.Future()
            # Not an executor's thread: at its end the process would wait for a storage that hangs.
            work = threading.Thread(
                target=_sync_all, args=(list(self._links.values()), done), name="meshlib-breakers", daemon=True
            )
            work.start()
            await asyncio.wrap_future(done)


def _sync_all(links: Sequence[Link], done: concurrent.futures.Future[None]) -> None:
    if done.set_running_or_notify_cancel():
        for link in links:
            link.try_sync()
        done.set_result(None)


class Link:
    """One breaker and its face in pybreaker's world.

    Attributes:
        policy: of the breaker, by the plan in force.
        in_reach: whether the storage could be used the last time.
    """

    def __init__(
        self,
        breaker: CircuitBreaker,
        policy: BreakerPolicy,
        listeners: Sequence[pybreaker.CircuitBreakerListener],
        storage: StorageFactory | None,
    ) -> None:
        import pybreaker

        self.breaker = breaker
        self.policy = policy
        self._state_class = pybreaker.CircuitBreakerState
        self._make_storage = storage
        self._shared: pybreaker.CircuitBreakerStorage | None = None
        self.in_reach = True
        self._face = pybreaker.CircuitBreaker(
            fail_max=policy.consecutive_failures or policy.minimum_calls,
            reset_timeout=policy.open_for,
            listeners=listeners,
            name=breaker.name,
        )
        self._listeners = listeners
        self._lock = threading.Lock()
        self._unsaid: BreakerState | None = None
        self._streak = 0
        self._good = False
        self._complained: set[tuple[int, str]] = set()
        breaker.on_change = self._changed
        breaker.on_result = self._result

    def part(self) -> None:
        """Let the breaker be."""
        self.breaker.on_change = self.breaker.on_result = None

    def _changed(self, breaker: CircuitBreaker, old: BreakerState, new: BreakerState) -> None:
        with self._lock:
            self._unsaid = new
        before, after = self._state_class(self._face, old.value), self._state_class(self._face, new.value)
        for listener in self._listeners:
            self._tell(listener, "state_change", before, after)

    def _result(self, good: bool) -> None:
        with self._lock:
            self._good = self._good or good
            self._streak = 0 if good else self._streak + 1
        for listener in self._listeners:
            if good:
                self._tell(listener, "success")
            else:
                self._tell(listener, "failure", AttemptFailed(self.breaker.name))

    def _tell(self, listener: pybreaker.CircuitBreakerListener, event: str, *what: object) -> None:
        try:
            getattr(listener, event)(self._face, *what)
        except Exception:
            # Once for each, for it may fail at every attempt.
            if (id(listener), event) not in self._complained:
                self._complained.add((id(listener), event))
                log.exception("breaker %s: a listener failed at %s; it is not said again", self.breaker.name, event)

    def try_sync(self) -> None:
        """`sync`, but a storage out of reach is a line in the log, once."""
        try:
            self.sync()
        except Exception:
            if self.in_reach:
                log.warning("the shared state of breaker %s is out of reach", self.breaker.name, exc_info=True)
            self.in_reach = False
        else:
            if not self.in_reach:
                log.info("the shared state of breaker %s is in reach again", self.breaker.name)
            self.in_reach = True

    def sync(self) -> None:
        """Write what happened here to the storage, and take over what happened elsewhere. Blocks."""
        if self._make_storage is None:
            return
        if self._shared is None:
            # Not before: a storage that is away must not keep a plan from being put in force.
            self._shared = self._make_storage(self.breaker.name)
        storage = self._shared
        with self._lock:
            unsaid, self._unsaid = self._unsaid, None
            failures, good = self._streak, self._good
            self._streak, self._good = 0, False
        try:
            if good:
                storage.reset_counter()
            for _ in range(min(failures, self.policy.consecutive_failures or 0)):
                storage.increment_counter()
            if unsaid is not None:
                self._say(storage, unsaid)
                return
        except Exception:
            # It is said when the storage is back, or the storage's older state would be taken over then.
            self._leave_unsaid(unsaid)
            raise
        self._hear(storage)

    def _leave_unsaid(self, state: BreakerState | None) -> None:
        with self._lock:
            self._unsaid = self._unsaid or state

    @staticmethod
    def _say(storage: pybreaker.CircuitBreakerStorage, state: BreakerState) -> None:
        if state is BreakerState.OPEN:
            storage.opened_at = datetime.now(UTC)
        elif state is BreakerState.CLOSED:
            storage.reset_counter()
        storage.state = state.value

    def _hear(self, storage: pybreaker.CircuitBreakerStorage) -> None:
        breaker, policy = self.breaker, self.policy
        shared = storage.state
        streak = policy.consecutive_failures
        if shared == BreakerState.OPEN.value and breaker.state is BreakerState.CLOSED:
            opened = storage.opened_at or datetime.now(UTC)
            left = (opened + timedelta(seconds=policy.open_for) - datetime.now(UTC)).total_seconds()
            breaker.force(BreakerState.OPEN, time.monotonic(), max(0.0, left))
            with self._lock:
                self._unsaid = None
        elif shared == BreakerState.CLOSED.value and breaker.state is not BreakerState.CLOSED:
            breaker.force(BreakerState.CLOSED, time.monotonic(), policy.open_for)
        elif streak is not None and storage.counter >= streak and breaker.state is BreakerState.CLOSED:
            breaker.force(BreakerState.OPEN, time.monotonic(), policy.open_for)


class AttemptFailed(Exception):
    """What listeners are given for an attempt that counted as a failure."""
