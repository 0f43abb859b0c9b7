from __future__ import annotations

import pytest

from meshlib.call.effects import Failure
from meshlib.plan.cluster import Cluster, Limits
from meshlib.state.breaker import BreakerPolicy, BreakerState
from meshlib.testing.clock import ManualClock
from tests.flow.hands import Hand, cluster, failed, ok, release, route, status

POLICY = BreakerPolicy(error_percent=None, consecutive_failures=2)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def to(clock: ManualClock) -> Cluster:
    """A cluster whose breaker has just opened."""
    to = cluster(breaker=POLICY)
    for _ in range(2):
        release(Hand(route(to, retry=None), clock).answer(status(500)).outcome)
    assert to.state.breaker.state is BreakerState.OPEN
    return to


def test_open_it_refuses_before_an_endpoint_is_picked(clock: ManualClock, to: Cluster) -> None:
    begun = sum(state.begun for state in to.endpoints)
    hand = Hand(route(to), clock)
    assert hand.outcome.failure is Failure.CIRCUIT_OPEN
    assert not hand.outcome.sent
    assert hand.said() == []
    assert sum(state.begun for state in to.endpoints) == begun


def test_a_probe_that_succeeds_closes_it(clock: ManualClock, to: Cluster) -> None:
    clock.advance(5.0)
    probe = Hand(route(to), clock)
    assert Hand(route(to), clock).outcome.failure is Failure.CIRCUIT_OPEN
    probe.answer(ok())
    assert to.state.breaker.state is BreakerState.CLOSED


def test_a_probe_that_fails_opens_it_again_and_its_retry_is_refused(clock: ManualClock, to: Cluster) -> None:
    clock.advance(5.0)
    hand = Hand(route(to), clock).answer(failed()).wait()
    assert to.state.breaker.state is BreakerState.OPEN
    assert hand.outcome.failure is Failure.CIRCUIT_OPEN
    assert hand.said() == [("first", "reset")]


def test_a_probe_that_is_cancelled_gives_its_place_back(clock: ManualClock, to: Cluster) -> None:
    clock.advance(5.0)
    Hand(route(to), clock).flow.close()
    assert to.state.breaker.state is BreakerState.HALF_OPEN
    assert Hand(route(to), clock).send


def test_a_probe_that_found_no_place_gives_it_back(clock: ManualClock) -> None:
    to = cluster(breaker=POLICY, limits=Limits(requests=1))
    busy = Hand(route(to), clock)
    to.state.breaker.force(BreakerState.OPEN, clock(), open_for=1.0)
    clock.advance(1.0)
    assert Hand(route(to), clock).outcome.failure is Failure.OVERFLOW
    release(busy.answer(ok()).outcome)
    assert Hand(route(to), clock).send
