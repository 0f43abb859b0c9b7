from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshlib.call.effects import Failure, Outcome
from meshlib.plan.cluster import Cluster, HedgePolicy, Limits
from meshlib.plan.route import Fault
from meshlib.policy.retry import RetryPolicy
from meshlib.policy.strategy import RetryStrategy
from meshlib.state.breaker import BreakerPolicy, BreakerState
from meshlib.state.budget import BudgetPolicy
from meshlib.testing.clock import ManualClock
from tests.flow.hands import Hand, cluster, failed, in_flight, release, route, status

BREAKER = BreakerPolicy(minimum_calls=1000)
ANSWERS = [None, status(503), None, failed(Failure.CONNECT), None, status(503)]


def everything() -> Cluster:
    return cluster(breaker=BREAKER, limits=Limits(requests=5, retries=2))


def points(to: Cluster) -> Iterator[Hand]:
    """The same call at each effect at which it can be closed: a delay, and three tries with two waits between."""
    rule = route(to, retry=RetryPolicy(2, "5xx"), fault=Fault(delay=1.0, delay_share=1.0), timeout=60.0)
    for stop in range(len(ANSWERS)):
        hand = Hand(rule, ManualClock(100.0))
        for answer in ANSWERS[:stop]:
            hand.answer(_copy(answer), after=0.1)
        assert hand.effect is not None
        yield hand


def _copy(answer: Outcome | None) -> Outcome | None:
    return answer and Outcome(answer.status, failure=answer.failure, sent=answer.sent, response=answer.response)


def test_a_flow_closed_at_any_effect_leaves_nothing_behind() -> None:
    to = everything()
    for hand in points(to):
        hand.flow.close()
        assert in_flight(to) == 0
        assert (to.state.requests.inside, to.state.retries.inside) == (0, 0)


def test_a_cancelled_attempt_is_in_the_evidence() -> None:
    said = []
    for hand in points(everything()):
        hand.flow.close()
        said.append([outcome for _, outcome in hand.said()])
    assert said == [
        [],
        ["abandoned"],
        ["503"],
        ["503", "abandoned"],
        ["503", "connect-failure"],
        ["503", "connect-failure", "abandoned"],
    ]


def test_what_is_closed_has_no_say_in_the_breaker() -> None:
    to = cluster(breaker=BreakerPolicy(minimum_calls=1, error_percent=1.0))
    Hand(route(to), ManualClock(100.0)).flow.close()
    assert to.state.breaker.state is BreakerState.CLOSED
    assert to.state.breaker.failures == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_of_the_driver_s_is_accounted_for_and_goes_on(error: type[BaseException]) -> None:
    to = everything()
    hand = Hand(route(to), ManualClock(100.0))
    with pytest.raises(error):
        hand.flow.throw(error)
    assert in_flight(to) == 0
    assert to.state.requests.inside == 0
    assert hand.said() == [("first", "abandoned")]


@pytest.mark.parametrize("started", ["none", "first", "both"])
def test_a_race_closed_by_its_driver_leaves_nothing_behind(started: str) -> None:
    always = BudgetPolicy(percent=100.0, min_per_second=0.0)
    breaker = BREAKER._replace(half_open_calls=2)
    to = cluster(hedge=HedgePolicy(delay=0.1, budget=always), breaker=breaker, limits=Limits(requests=5))
    clock = ManualClock(100.0)
    to.state.breaker.force(BreakerState.OPEN, clock(), open_for=1.0)
    clock.advance(1.0)
    hand = Hand(route(to), clock)
    second = hand.race.second()
    assert second is not None
    if started != "none":
        next(hand.race.first)
    if started == "both":
        next(second)
    for flow in (hand.race.first, second, hand.flow):
        flow.close()
    assert in_flight(to) == 0
    assert to.state.requests.inside == 0
    # Both probes are there again.
    assert [to.state.breaker.admit(breaker, clock()) is not None for _ in range(3)] == [True, True, False]


def test_a_response_that_is_discarded_is_released_once() -> None:
    to = everything()
    hand = Hand(route(to), ManualClock(100.0)).answer(status(503))
    discarded = hand.backoff.discard
    assert discarded is not None
    release(discarded)
    hand.wait()
    assert in_flight(to) == 1


def test_a_strategy_that_fails_leaves_nothing_behind() -> None:
    def wait(_: object) -> float:
        raise RuntimeError("no")

    to = everything()
    hand = Hand(route(to, retry=RetryPolicy(2, "5xx", strategy=RetryStrategy(wait=wait))), ManualClock(100.0))
    with pytest.raises(RuntimeError, match="no"):
        hand.answer(status(503))
    assert in_flight(to) == 0
