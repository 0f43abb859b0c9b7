"""Counting on a store beside the requests: nobody waits longer than told, and a store that was away is found again."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from meshlib.agent import counting
from meshlib.agent.counting import Answer, Away, SharedCounts
from meshlib.policy.ratelimit import Spending
from tests.support import eventually, eventually_async

ONE = (Spending("one", 5, 1.0),)
TWO = (*ONE, Spending("two", 5, 1.0))
LONG = 30.0


class Store:
    """A store that does as it is told, and notes what it is asked."""

    def __init__(self) -> None:
        self.pieces: list[int] = []
        self.open = threading.Event()
        self.open.set()
        self.away = False
        self.complaint = ""
        self.broken = False
        self.reached = 0
        self.closed = 0

    def count(self, requests: Sequence[Sequence[Spending]]) -> Sequence[Answer | str]:
        self.pieces.append(len(requests))
        assert self.open.wait(LONG)
        if self.broken:
            raise ZeroDivisionError
        if self.away:
            raise Away("nobody answers")
        return [self.complaint or [(True, 4.0)] * len(request) for request in requests]

    def reach(self) -> None:
        self.reached += 1
        if self.away:
            raise Away("nobody answers")

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.open.set()


@pytest.fixture
def counts(store: Store) -> Iterator[Callable[..., SharedCounts]]:
    """Makes a `SharedCounts`, which is closed at the end."""
    made: list[SharedCounts] = []

    def make(timeout: float = LONG) -> SharedCounts:
        made.append(SharedCounts(lambda: store, "the store", timeout))
        return made[-1]

    yield make
    store.open.set()
    for one in made:
        one.close()


Make = Callable[..., SharedCounts]


def test_every_bucket_is_answered_for_in_threads_and_on_both_loops(counts: Make) -> None:
    one = counts()
    assert one.count(TWO) == [(True, 4.0)] * 2
    assert asyncio.run(one.acount(TWO)) == [(True, 4.0)] * 2
    assert trio.run(one.acount, TWO) == [(True, 4.0)] * 2
    assert one.trouble == ""


def test_what_waits_at_one_time_goes_in_one_piece(counts: Make, store: Store) -> None:
    one = counts()
    store.open.clear()

    async def many() -> list[Answer]:
        first = asyncio.create_task(one.acount(ONE))
        await eventually_async(lambda: store.pieces)
        rest = [asyncio.create_task(one.acount(ONE)) for _ in range(20)]
        await asyncio.sleep(0)
        store.open.set()
        return await asyncio.gather(first, *rest)

    assert asyncio.run(many()) == [[(True, 4.0)]] * 21
    assert store.pieces == [1, 20]


def test_nobody_waits_for_a_store_that_hangs_longer_than_the_timeout(
    counts: Make, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counting, "CONNECT_WAIT", 0.02)
    one = counts(0.02)
    store.open.clear()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "meshlib.inbound"):
        assert one.count(TWO) == [None, None]
        assert asyncio.run(one.acount(ONE)) == [None]
    assert time.monotonic() - began < LONG / 2
    assert caplog.text.count("the store didn't count a request within 0.02 s") == 1


def test_who_has_stopped_waiting_is_not_counted(counts: Make, store: Store) -> None:
    one = counts()
    store.open.clear()

    async def cancelled() -> None:
        first = asyncio.create_task(one.acount(ONE))
        await eventually_async(lambda: store.pieces)
        second, third = (asyncio.create_task(one.acount(ONE)) for _ in range(2))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        store.open.set()
        await asyncio.gather(first, third)

    asyncio.run(cancelled())
    assert store.pieces == [1, 1]


def test_nobody_waits_for_a_store_that_is_away_and_it_is_found_again(
    counts: Make, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    one = counts()
    store.away = True
    with caplog.at_level(logging.INFO, "meshlib.inbound"):
        assert one.count(ONE) == [None]
        asked = len(store.pieces)
        assert [one.count(ONE) for _ in range(100)] == [[None]] * 100
        assert len(store.pieces) == asked, "nobody asks but the thread"
        assert "the store is away" in one.trouble
        assert "nobody answers" in one.trouble
        eventually(lambda: store.reached >= 2)
        store.away = False
        eventually(lambda: one.trouble == "")
    assert one.count(ONE) == [(True, 4.0)]
    assert caplog.text.count("is away") == 1
    assert caplog.text.count("is back") == 1


def test_everybody_who_waits_goes_on_when_the_store_is_lost(counts: Make, store: Store) -> None:
    one = counts()
    store.open.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(one.count, ONE)]
        eventually(lambda: store.pieces)
        waiting += [pool.submit(one.count, ONE) for _ in range(7)]
        eventually(lambda: len(one._queue) == 7)
        store.away = True
        store.open.set()
        assert [each.result(LONG / 2) for each in waiting] == [[None]] * 8


def test_what_the_store_cannot_count_is_said_and_the_next_is_counted(counts: Make, store: Store) -> None:
    one = counts()
    store.complaint = "out of memory"
    assert one.count(TWO) == [None, None]
    assert one.trouble == "the store can't count: out of memory"
    store.complaint = ""
    assert one.count(ONE) == [(True, 4.0)]
    assert one.trouble == ""


def test_a_full_queue_keeps_nobody_waiting(counts: Make, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_WAITING", 1)
    one = counts()
    store.open.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(one.count, ONE)
        eventually(lambda: store.pieces)
        second = pool.submit(one.count, ONE)
        eventually(lambda: len(one._queue) == 1)
        assert one.count(ONE) == [None]
        store.open.set()
        assert [first.result(LONG), second.result(LONG)] == [[(True, 4.0)]] * 2


def test_closing_ends_the_thread_and_lets_everybody_go_on(counts: Make, store: Store) -> None:
    one = counts()
    answers: queue.Queue[Answer] = queue.Queue()
    store.open.clear()
    waiting = [threading.Thread(target=lambda: answers.put(one.count(ONE))) for _ in range(2)]
    waiting[0].start()
    eventually(lambda: store.pieces)
    waiting[1].start()
    eventually(lambda: len(one._queue) == 1)
    closing = threading.Thread(target=one.close)
    closing.start()
    assert answers.get(timeout=LONG / 2) == [None], "who waits in the queue doesn't wait for the store"
    store.open.set()
    for thread in (closing, *waiting):
        thread.join(LONG)
    assert store.closed == 1
    assert one.count(ONE) == [(True, 4.0)], "counting once more begins anew"


def test_a_store_that_was_away_when_counting_was_closed_is_tried_anew(counts: Make, store: Store) -> None:
    one = counts()
    store.away = True
    assert one.count(ONE) == [None]
    one.close()
    assert one.trouble == ""
    store.away = False
    assert one.count(ONE) == [(True, 4.0)]


def test_what_was_not_foreseen_holds_up_nobody_and_counting_goes_on_after_it(
    counts: Make, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counting, "LONGEST_RETRY", 0.01)
    one = counts(LONG)
    store.broken = True
    begun = time.monotonic()
    for _ in range(3):
        assert one.count(ONE) == [None]
    assert time.monotonic() - begun < LONG
    assert "in a way nobody foresaw" in caplog.text
    store.broken = False
    eventually(lambda: one.count(ONE) == [(True, 4.0)])


def test_without_a_store_nothing_begins(caplog: pytest.LogCaptureFixture) -> None:
    one = SharedCounts(None, "", 0.0)
    assert one.trouble == ""
    with caplog.at_level(logging.WARNING, "meshlib.inbound"):
        assert [one.count(TWO), asyncio.run(one.acount(ONE))] == [[None, None], [None]]
    assert caplog.text.count("MESHLIB_LIMITS names no Redis") == 1
    assert "MESHLIB_LIMITS" in one.trouble
    one.close()
