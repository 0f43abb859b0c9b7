from __future__ import annotations

import pytest

from meshlib.call.call import Body
from meshlib.call.drivers import drive
from meshlib.call.effects import Backoff, Failure, Flow, Outcome, Send
from meshlib.plan.cluster import Cluster, HedgePolicy
from meshlib.policy.retry import RetryPolicy
from meshlib.state.breaker import BreakerPolicy, BreakerState
from meshlib.state.budget import BudgetPolicy
from meshlib.testing.clock import ManualClock
from tests.flow.hands import Hand, cluster, failed, in_flight, ok, release, route

ALWAYS = BudgetPolicy(percent=100.0, min_per_second=0.0)
HEDGE = HedgePolicy(delay=0.05, budget=ALWAYS)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def to() -> Cluster:
    return cluster(hedge=HEDGE)


def send_of(flow: Flow) -> Send:
    effect = next(flow)
    assert isinstance(effect, Send)
    return effect


def end(flow: Flow, outcome: Outcome) -> Outcome:
    with pytest.raises(StopIteration) as stopped:
        flow.send(outcome)
    result: Outcome = stopped.value.value
    return result


def test_the_first_and_the_second_go_to_different_endpoints(clock: ManualClock, to: Cluster) -> None:
    race = Hand(route(to), clock).race
    assert race.delay == 0.05
    first = send_of(race.first)
    clock.advance(0.05)
    second = race.second()
    assert second is not None
    hedge = send_of(second)
    assert hedge.endpoint is not first.endpoint
    assert (first.attempt, hedge.attempt) == (1, 2)
    assert in_flight(to) == 2


@pytest.mark.parametrize("winner", ["first", "hedge"])
def test_whichever_is_good_first_wins_and_the_other_is_abandoned(clock: ManualClock, to: Cluster, winner: str) -> None:
    hand = Hand(route(to), clock)
    first, second = hand.race.first, hand.race.second()
    assert second is not None
    send_of(first)
    send_of(second)
    won, lost = (first, second) if winner == "first" else (second, first)
    clock.advance(0.07)
    outcome = end(won, ok())
    lost.close()
    hand.answer(outcome)
    assert hand.outcome is outcome
    assert in_flight(to) == 1
    release(outcome)
    assert in_flight(to) == 0
    loser = "hedge" if winner == "first" else "first"
    assert sorted(hand.said()) == sorted([(winner, "200"), (loser, "abandoned")])
    assert all(attempt.seconds == pytest.approx(0.07) for attempt in hand.call.evidence(clock()).attempts)


def test_the_loser_says_nothing_of_its_endpoint(clock: ManualClock, to: Cluster) -> None:
    race = Hand(route(to), clock).race
    endpoint = send_of(race.first).endpoint
    before = endpoint.latency(clock())
    race.first.close()
    assert endpoint.latency(clock()) == before
    assert endpoint.server_errors == 0


def test_when_both_fail_there_is_still_the_retry(clock: ManualClock, to: Cluster) -> None:
    hand = Hand(route(to), clock)
    first, second = hand.race.first, hand.race.second()
    assert second is not None
    tried = {send_of(first).endpoint, send_of(second).endpoint}
    end(first, failed())
    hand.answer(end(second, failed())).wait()
    assert hand.send.endpoint not in tried
    assert hand.answer(ok()).outcome.good
    assert [kind for kind, _ in hand.said()] == ["first", "hedge", "retry"]


def test_only_the_first_attempt_is_hedged(clock: ManualClock, to: Cluster) -> None:
    hand = Hand(route(to), clock)
    send_of(hand.race.first)
    hand.answer(end(hand.race.first, failed())).wait()
    assert hand.send


@pytest.mark.parametrize(
    "call", [{"idempotent": False}, {"body": Body(None)}, {"body": Body(1_000_000)}], ids=["POST", "stream", "large"]
)
def test_what_cannot_be_sent_twice_at_one_time_is_not_hedged(
    clock: ManualClock, to: Cluster, call: dict[str, bool | Body]
) -> None:
    assert Hand(route(to), clock, **call).send


def test_one_endpoint_is_not_raced_against_itself(clock: ManualClock) -> None:
    assert Hand(route(cluster(1, hedge=HEDGE)), clock).send


def test_hedges_keep_to_their_share_of_calls(clock: ManualClock) -> None:
    to = cluster(hedge=HEDGE._replace(budget=BudgetPolicy(percent=10.0, min_per_second=0.0)))
    races = [Hand(route(to), clock).race for _ in range(30)]
    assert sum(race.second() is not None for race in races) == 3


def test_hedges_are_paid_for_by_the_retry_budget_too(clock: ManualClock) -> None:
    to = cluster(hedge=HEDGE, budget=BudgetPolicy(percent=0.0, min_per_second=0.1))
    races = [Hand(route(to), clock).race for _ in range(5)]
    assert sum(race.second() is not None for race in races) == 1


def test_without_a_delay_of_its_own_it_waits_for_the_measured_percentile(clock: ManualClock) -> None:
    to = cluster(hedge=HedgePolicy(budget=ALWAYS))
    assert Hand(route(to), clock).send  # nothing measured yet
    for seconds in range(100):
        to.state.latencies.add(seconds / 1000)
    clock.advance(3.0)
    assert Hand(route(to), clock).race.delay == 0.099


def test_the_measured_delay_is_never_below_a_millisecond(clock: ManualClock) -> None:
    to = cluster(hedge=HedgePolicy(budget=ALWAYS))
    for _ in range(100):
        to.state.latencies.add(0.0001)
    assert Hand(route(to), clock).race.delay == 0.001


def test_a_half_open_breaker_has_no_probe_for_the_hedge(clock: ManualClock) -> None:
    to = cluster(hedge=HEDGE, breaker=BreakerPolicy())
    to.state.breaker.force(BreakerState.OPEN, clock(), open_for=1.0)
    clock.advance(1.0)
    race = Hand(route(to), clock).race
    send_of(race.first)
    second = race.second()
    assert second is not None
    with pytest.raises(StopIteration) as stopped:
        next(second)
    assert stopped.value.value.failure is Failure.CIRCUIT_OPEN


class OneAfterAnother:
    """The sync driver's hands: it has no concurrency."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes
        self.slept: list[float] = []

    def send(self, send: Send) -> Outcome:
        return self.outcomes.pop(0)

    def discard(self, outcome: Outcome) -> None:
        release(outcome)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_a_driver_without_concurrency_runs_the_first_alone(clock: ManualClock, to: Cluster) -> None:
    hand = Hand(route(to, retry=RetryPolicy(1, "reset")), clock)
    hands = OneAfterAnother([failed(), ok()])
    hand.answer(drive(hand.race.first, hands))
    assert isinstance(hand.effect, Backoff)
    assert hand.wait().answer(hands.send(hand.send)).outcome.good
    assert [kind for kind, _ in hand.said()] == ["first", "retry"]
