"""Rate limits that processes share: requests are counted on a store, by one thread and over one connection.

Whoever has a request to count puts it in a queue and waits a bounded time. The thread sends what it finds there in one
piece: the more there is to count, the more goes in one round trip. So one connection serves threads and event loops
alike, and a store that hangs holds up nobody for longer than his time.

A store that is away is said so once, and from then on nobody waits for it: requests go by their limit's `onError`, and
the thread tries by itself until the store is back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from meshlib.identity.sparing import Sparing
from meshlib.policy.ratelimit import Level, Spending
from meshlib.waiting import Flag

__all__ = ["CONNECT_WAIT", "FIRST_RETRY", "LONGEST_RETRY", "Away", "CountStore", "SharedCounts"]

log = logging.getLogger("meshlib.inbound")

CONNECT_WAIT = 1.0
"""Seconds that requests wait as long as there never was a connection."""

FIRST_RETRY = 0.1
LONGEST_RETRY = 2.0
"""Seconds between two tries to reach a store that is away; doubled from the first to the longest."""

MOST_WAITING = 10_000
"""Requests in the queue; what else comes isn't counted."""

MOST_AT_ONCE = 256
"""Requests counted in one piece."""

CLOSE_WAIT = 2.0

UNSET = "GLOBAL rate limits aren't counted, and requests go by their onError: MESHLIB_LIMITS names no Redis"

Answer = Sequence[Level | None]


class Away(Exception):
    """The store can't be reached; the text says why, and holds no secret."""


class CountStore(Protocol):
    """Where buckets are shared. Used by one thread."""

    def count(self, requests: Sequence[Sequence[Spending]]) -> Sequence[Answer | str]:
        """Count requests, each on all its limits at once; a text says why one couldn't be.

        Raises:
            Away: none was counted, or nobody knows.
        """

    def reach(self) -> None:
        """See that it can be reached. Raises `Away`."""

    def close(self) -> None:
        """Let go of the connection."""


class SharedCounts:
    """Counts requests on a store. Thread-safe; the thread begins with the first request.

    Args:
        make_store: called on the thread; None: there is no store, and nothing is counted.
        where: the store in words, without a secret.
        timeout: seconds one request waits.
    """

    def __init__(self, make_store: Callable[[], CountStore] | None, where: str, timeout: float) -> None:
        self._make_store = make_store
        self._where = where
        self._timeout = timeout
        self._said = Sparing(log)
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[_Order] = deque()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._patience = max(self._timeout, CONNECT_WAIT)
        self._away = ""
        self._complaint = ""
        self._needed = False

    after_fork = _begin
    """In a child: the thread is gone, and the connection is the parent's."""

    @property
    def trouble(self) -> str:
        """Why requests aren't counted, "" when they are or there are none to count."""
        if self._make_store is None:
            return UNSET if self._needed else ""
        return self._away or self._complaint

    def count(self, spendings: Sequence[Spending]) -> Answer:
        """How each bucket stands after the request, None: it couldn't be counted. Blocks for the timeout at most."""
        order = self._order(spendings)
        if order is not None:
            order.done.wait(self._patience)
        return self._answer(order, spendings)

    async def acount(self, spendings: Sequence[Spending]) -> Answer:
        """`count` without blocking the event loop."""
        order = self._order(spendings)
        if order is not None:
            try:
                await order.done.sleep(self._patience)
            except BaseException:
                order.left = True
                raise
        return self._answer(order, spendings)

    def close(self) -> None:
        """Stop counting; who waits isn't counted. Counting once more begins anew."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._stop.set()
            self._away = self._complaint = ""  # whoever counts next finds out anew
            self._changed.notify_all()
        self._let_go()
        if thread is not None:
            thread.join(CLOSE_WAIT)

    def _order(self, spendings: Sequence[Spending]) -> _Order | None:
        if self._make_store is None:
            self._needed = True
            self._said.warning(time.monotonic(), UNSET, "%s", UNSET)
            return None
        if self._away:
            return None
        order = _Order(spendings)
        with self._changed:
            if len(self._queue) >= MOST_WAITING:
                return None
            self._queue.append(order)
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._make_store, self._stop), name="meshlib-limits", daemon=True
                )
                self._thread.start()
            self._changed.notify()
        return order

    def _answer(self, order: _Order | None, spendings: Sequence[Spending]) -> Answer:
        if order is not None:
            if order.answer is not None:
                return order.answer
            if not order.done.is_set():
                order.left = True
                message = "%s didn't count a request within %g s"
                self._said.warning(time.monotonic(), message, message, self._where, self._patience)
        return [None] * len(spendings)

    def _run(self, make_store: Callable[[], CountStore], stop: threading.Event) -> None:
        store = make_store()
        try:
            while not stop.is_set():
                orders = self._next(stop)
                try:
                    answers = store.count([order.spendings for order in orders]) if orders else ()
                except Away as error:
                    self._lose(orders, error, stop)
                    self._win_back(store, stop, FIRST_RETRY)
                except Exception as error:
                    log.exception("counting on %s failed in a way nobody foresaw", self._where)
                    self._lose(orders, error, stop)
                    self._win_back(store, stop, LONGEST_RETRY)
                else:
                    self._patience = self._timeout
                    self._deliver(orders, answers)
        finally:
            store.close()

    def _next(self, stop: threading.Event) -> Sequence[_Order]:
        """The requests to count now, those that came first; whoever has stopped waiting isn't counted."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or stop.is_set())
            taken = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_AT_ONCE))]
        return [order for order in taken if not order.left]

    def _deliver(self, orders: Sequence[_Order], answers: Sequence[Answer | str]) -> None:
        complaint = ""
        for order, answer in zip(orders, answers, strict=True):
            if isinstance(answer, str):
                complaint = f"{self._where} can't count: {answer}"
                self._said.warning(time.monotonic(), complaint, "%s", complaint)
            else:
                order.answer = answer
            order.done.set()
        if orders:
            self._complaint = complaint

    def _lose(self, orders: Sequence[_Order], error: Exception, stop: threading.Event) -> None:
        why = str(error) if isinstance(error, Away) else repr(error)[:200]
        with self._changed:
            if not stop.is_set():
                self._away = f"{self._where} is away, and requests go by the onError of their rate limits: {why}"
                log.warning("%s", self._away)
        for order in orders:
            order.done.set()
        self._let_go()

    def _win_back(self, store: CountStore, stop: threading.Event, delay: float) -> None:
        while not stop.wait(delay):
            delay = min(2.0 * delay, LONGEST_RETRY)
            try:
                store.reach()
            except Exception:  # noqa: BLE001, S112 - it was said, and shows in the status
                continue
            self._away = ""
            log.info("%s is back, and counts requests", self._where)
            return

    def _let_go(self) -> None:
        """Have everybody in the queue go on uncounted."""
        with self._changed:
            orders = list(self._queue)
            self._queue.clear()
        for order in orders:
            order.done.set()


class _Order:
    """One request to be counted.

    Attributes:
        answer: None as long as there is none, or where none came.
        left: nobody waits for it any more.
    """

    __slots__ = ("answer", "done", "left", "spendings")

    def __init__(self, spendings: Sequence[Spending]) -> None:
        self.spendings = spendings
        self.done = Flag()
        self.answer: Answer | None = None
        self.left = False
