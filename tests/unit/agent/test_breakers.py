"""The circuit breaker in pybreaker's language."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from typing import Any

import pybreaker
import pytest

from meshlib.agent.breakers import BreakerBridge, Link
from meshlib.state.breaker import BreakerPolicy, BreakerState, CircuitBreaker
from meshlib.state.endpoint import Verdict
from tests.support import eventually_async
from tests.unit.plan.compiled import compiled, doc, reviews

PATIENCE = 5.0
POLICY = BreakerPolicy(error_percent=None, consecutive_failures=3, open_for=5.0)


class Notes(pybreaker.CircuitBreakerListener):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def success(self, cb: pybreaker.CircuitBreaker) -> None:
        self.heard.append(("success", cb.name))

    def failure(self, cb: pybreaker.CircuitBreaker, exc: BaseException) -> None:
        self.heard.append(("failure", str(exc)))

    def state_change(self, cb: pybreaker.CircuitBreaker, old_state: Any, new_state: Any) -> None:
        self.heard.append((old_state.name, new_state.name))


def attempt(breaker: CircuitBreaker, verdict: Verdict, now: float = 1.0) -> None:
    permit = breaker.admit(POLICY, now)
    assert permit is not None
    breaker.settle(POLICY, permit, verdict, now)


@pytest.fixture
def breaker() -> CircuitBreaker:
    return CircuitBreaker("reviews")


def test_listeners_hear_of_results_and_of_changes_in_pybreakers_words(breaker: CircuitBreaker) -> None:
    notes = Notes()
    Link(breaker, POLICY, [notes], None)
    attempt(breaker, Verdict.SUCCESS)
    for _ in range(3):
        attempt(breaker, Verdict.FAILURE)
    assert notes.heard == [("success", "reviews"), *[("failure", "reviews")] * 3, ("closed", "open")]


def test_an_abandoned_attempt_is_not_told(breaker: CircuitBreaker) -> None:
    notes = Notes()
    Link(breaker, POLICY, [notes], None)
    attempt(breaker, Verdict.ABANDONED)
    assert notes.heard == []


def test_a_listener_that_fails_disturbs_nobody(breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Notes):
        def success(self, cb: pybreaker.CircuitBreaker) -> None:
            raise RuntimeError("no")

    notes = Notes()
    Link(breaker, POLICY, [Broken(), notes], None)
    for _ in range(3):
        attempt(breaker, Verdict.SUCCESS)
    assert notes.heard == [("success", "reviews")] * 3
    assert caplog.text.count("a listener failed at success") == 1


def shared(count: int = 2) -> tuple[pybreaker.CircuitMemoryStorage, list[CircuitBreaker], list[Link]]:
    storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
    breakers = [CircuitBreaker("reviews") for _ in range(count)]
    return storage, breakers, [Link(breaker, POLICY, (), lambda _name: storage) for breaker in breakers]


def test_a_breaker_opened_by_one_process_opens_in_the_other() -> None:
    storage, (ours, theirs), links = shared()
    for _ in range(3):
        attempt(ours, Verdict.FAILURE)
    for link in links:
        link.sync()
    assert storage.state == "open"
    assert theirs.state is BreakerState.OPEN


def test_failures_of_several_processes_add_up() -> None:
    _, (ours, theirs), links = shared()
    attempt(ours, Verdict.FAILURE)
    attempt(ours, Verdict.FAILURE)
    attempt(theirs, Verdict.FAILURE)
    for link in (*links, *links):
        link.sync()
    assert (ours.state, theirs.state) == (BreakerState.OPEN, BreakerState.OPEN)


def test_a_success_between_them_forgets_the_failures() -> None:
    _, (ours, theirs), links = shared()
    attempt(ours, Verdict.FAILURE)
    attempt(ours, Verdict.FAILURE)
    links[0].sync()
    attempt(theirs, Verdict.SUCCESS)
    attempt(theirs, Verdict.FAILURE)
    for link in (links[1], links[0]):
        link.sync()
    assert (ours.state, theirs.state) == (BreakerState.CLOSED, BreakerState.CLOSED)


def test_a_breaker_closed_by_one_processs_probe_closes_in_the_other() -> None:
    storage, (ours, theirs), links = shared()
    for _ in range(3):
        attempt(ours, Verdict.FAILURE)
    for link in links:
        link.sync()
    attempt(ours, Verdict.SUCCESS, now=7.0)
    for link in links:
        link.sync()
    assert storage.state == "closed"
    assert (ours.state, theirs.state) == (BreakerState.CLOSED, BreakerState.CLOSED)


def test_an_open_storage_from_long_ago_lets_a_probe_through_at_once() -> None:
    storage, (ours, _), links = shared()
    storage.state = "open"
    storage.opened_at = datetime(2020, 1, 1, tzinfo=UTC)
    links[0].sync()
    assert ours.state is BreakerState.OPEN
    import time

    assert ours.admit(POLICY, time.monotonic()) is not None


class Away(pybreaker.CircuitMemoryStorage):
    """A storage that can be out of reach."""

    def __init__(self) -> None:
        super().__init__(pybreaker.STATE_CLOSED)
        self.away = False

    @property
    def state(self) -> str:
        return str(super().state)

    @state.setter
    def state(self, state: str) -> None:
        if self.away:
            raise ConnectionError("away")
        self._state = state


def test_a_storage_that_cant_be_made_keeps_no_plan_from_being_put_in_force(breaker: CircuitBreaker) -> None:
    def storage(_name: str) -> pybreaker.CircuitBreakerStorage:
        raise ConnectionError("away")

    link = Link(breaker, POLICY, (), storage)
    attempt(breaker, Verdict.SUCCESS)
    with pytest.raises(ConnectionError):
        link.sync()


def test_a_storage_out_of_reach_is_said_once(breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture) -> None:
    storage = Away()
    link = Link(breaker, POLICY, (), lambda _name: storage)
    for _ in range(3):
        attempt(breaker, Verdict.FAILURE)
    storage.away = True
    for _ in range(3):
        link.try_sync()
    assert caplog.text.count("out of reach") == 1


def test_a_storage_that_hangs_is_on_a_thread_no_process_waits_for() -> None:
    looking, go_on = threading.Event(), threading.Event()
    waited_for: list[bool] = []

    def storage(_name: str) -> pybreaker.CircuitBreakerStorage:
        waited_for.append(not threading.current_thread().daemon)
        looking.set()
        go_on.wait(PATIENCE)
        return pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)

    async def main() -> None:
        bridge = BreakerBridge((), storage)
        bridge.attach(compiled(doc("OutboundPolicy", "{host: reviews, circuitBreaker: {}}"), instances=[reviews(1)]))
        work = asyncio.ensure_future(bridge.run())
        await eventually_async(looking.is_set)
        work.cancel()
        await asyncio.wait([work])

    asyncio.run(main())
    go_on.set()
    assert waited_for == [False]


def test_what_a_storage_out_of_reach_wasnt_told_it_is_told_later(breaker: CircuitBreaker) -> None:
    storage = Away()
    link = Link(breaker, POLICY, (), lambda _name: storage)
    for _ in range(3):
        attempt(breaker, Verdict.FAILURE)
    storage.away = True
    with pytest.raises(ConnectionError):
        link.sync()
    storage.away = False
    link.sync()
    assert (storage.state, breaker.state) == ("open", BreakerState.OPEN)
