from __future__ import annotations

import pytest

from meshlib.call.call import REPLAY_LIMIT, Body
from meshlib.call.effects import Failure
from meshlib.plan.cluster import Limits
from meshlib.plan.route import RoutePlan, Split
from meshlib.policy.balance import RandomPicker
from meshlib.policy.retry import RetryPolicy
from meshlib.state.budget import BudgetPolicy
from meshlib.state.outlier import OutlierPolicy
from meshlib.testing.clock import ManualClock
from tests.flow.hands import Hand, cluster, failed, in_flight, ok, release, route, status

NO_BUDGET = BudgetPolicy(0.0, 0.0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


def test_a_call_that_succeeds_is_one_send(clock: ManualClock) -> None:
    to = cluster()
    hand = Hand(route(to), clock)
    assert (hand.send.attempt, hand.send.expires, hand.send.connect_timeout) == (1, None, 10.0)
    assert in_flight(to) == 1
    hand.answer(ok(), after=0.2)
    assert hand.outcome.good
    assert hand.said() == [("first", "200")]


def test_a_response_is_in_flight_until_its_body_has_ended(clock: ManualClock) -> None:
    to = cluster()
    hand = Hand(route(to), clock).answer(ok())
    assert in_flight(to) == 1
    release(hand.outcome)
    assert in_flight(to) == 0


def test_a_failure_is_tried_again_elsewhere_and_succeeds(clock: ManualClock) -> None:
    to = cluster(kind=RandomPicker)  # and its chance is always the same
    hand = Hand(route(to), clock)
    first = hand.send.endpoint
    hand.answer(failed())
    assert hand.backoff.seconds == pytest.approx(0.0125)
    hand.wait()
    assert hand.send.attempt == 2
    assert hand.send.endpoint is not first
    hand.answer(ok())
    assert hand.outcome.good
    assert hand.said() == [("first", "reset"), ("retry", "200")]


def test_where_the_route_says_so_the_same_host_is_tried_again(clock: ManualClock) -> None:
    to = cluster(1)
    hand = Hand(route(to, retry=RetryPolicy(1, "5xx", avoid_tried=False)), clock).answer(status(500)).wait()
    assert hand.send.endpoint is to.endpoints[0]


def test_after_the_last_retry_the_last_outcome_is_handed_out(clock: ManualClock) -> None:
    to = cluster()
    hand = Hand(route(to), clock)
    for _ in range(2):
        hand.answer(status(503)).wait()
    hand.answer(status(503))
    assert hand.outcome.status == 503
    assert in_flight(to) == 1  # its body is still to be read
    release(hand.outcome)
    assert [kind for kind, _ in hand.said()] == ["first", "retry", "retry"]
    assert in_flight(to) == 0


def test_what_is_not_worth_a_retry_is_handed_out_at_once(clock: ManualClock) -> None:
    assert Hand(route(cluster()), clock).answer(status(500)).outcome.status == 500
    assert Hand(route(cluster(), retry=None), clock).answer(failed()).outcome.failure is Failure.RESET


@pytest.mark.parametrize("outcome", [status(503), failed(Failure.RESET), failed(Failure.TIMEOUT)])
def test_a_request_that_is_not_idempotent_is_never_sent_twice(clock: ManualClock, outcome: object) -> None:
    hand = Hand(route(cluster(), retry=RetryPolicy(3, "5xx")), clock, idempotent=False).answer(outcome)  # type: ignore[arg-type]
    assert hand.outcome is outcome


def test_a_request_that_never_left_is_sent_again_even_if_it_is_not_idempotent(clock: ManualClock) -> None:
    hand = Hand(route(cluster()), clock, idempotent=False).answer(failed(Failure.CONNECT, sent=False)).wait()
    assert hand.answer(ok()).outcome.good


def test_a_streamed_body_is_sent_again_only_if_it_was_not_touched(clock: ManualClock) -> None:
    body = Body(None)
    hand = Hand(route(cluster()), clock, body=body).answer(failed(Failure.CONNECT, sent=False)).wait()
    body.touched = True
    assert hand.answer(failed(Failure.RESET)).outcome.failure is Failure.RESET


def test_a_body_above_64_kib_is_never_sent_again(clock: ManualClock) -> None:
    assert Hand(route(cluster()), clock, body=Body(REPLAY_LIMIT)).answer(failed()).backoff
    assert Hand(route(cluster()), clock, body=Body(REPLAY_LIMIT + 1)).answer(failed()).outcome.failure


def test_without_budget_there_is_no_retry(clock: ManualClock) -> None:
    to = cluster(budget=NO_BUDGET)
    assert Hand(route(to), clock).answer(failed()).outcome.failure is Failure.RESET
    assert to.state.budget.refused == 1


def test_the_budget_is_credited_once_for_a_call_and_never_for_an_attempt(clock: ManualClock) -> None:
    policy = BudgetPolicy(100.0, 0.0)
    to = cluster(budget=policy)
    hand = Hand(route(to, retry=RetryPolicy(3, "5xx")), clock).answer(failed()).wait().answer(failed())
    assert hand.outcome.failure is Failure.RESET
    assert to.state.budget.balance(policy, clock()) == 0.0


def test_retry_after_is_waited_for_and_a_refusal_for_good_is_final(clock: ManualClock) -> None:
    assert Hand(route(cluster()), clock).answer(status(503, retry_after=2.0)).backoff.seconds == 2.0
    assert Hand(route(cluster()), clock).answer(status(503, retry_after=-1.0)).outcome.status == 503


def test_a_retry_that_would_start_after_the_deadline_is_not_begun(clock: ManualClock) -> None:
    to = cluster()
    hand = Hand(route(to, timeout=1.0), clock).answer(status(503, retry_after=5.0), after=0.1)
    assert hand.outcome.status == 503
    assert to.state.budget.balance(to.budget, clock()) > 100.0  # and nothing was paid for it


def test_a_driver_that_oversleeps_the_deadline_sends_nothing(clock: ManualClock) -> None:
    to = cluster()
    hand = Hand(route(to, timeout=1.0), clock).answer(failed()).answer(None, after=2.0)
    assert hand.outcome.failure is Failure.DEADLINE
    assert not hand.outcome.sent
    assert in_flight(to) == 0


def test_a_call_that_begins_after_its_deadline_sends_nothing(clock: ManualClock) -> None:
    assert Hand(route(cluster()), clock, deadline=100.0).outcome.failure is Failure.DEADLINE


@pytest.mark.parametrize(
    ("timeout", "inherited", "expires"),
    [(1.0, None, 101.0), (1.0, 100.5, 100.5), (1.0, 105.0, 101.0), (None, 105.0, 105.0)],
)
def test_the_deadline_is_the_least_of_the_route_s_and_the_inherited(
    clock: ManualClock, timeout: float | None, inherited: float | None, expires: float
) -> None:
    assert Hand(route(cluster(), timeout=timeout), clock, deadline=inherited).send.expires == expires


def test_only_a_deadline_that_somebody_asked_for_bounds_the_body(clock: ManualClock) -> None:
    assert not Hand(route(cluster(), timeout=15.0, explicit=False), clock).call.bounds_body
    assert Hand(route(cluster(), timeout=1.0, explicit=True), clock).call.bounds_body
    assert Hand(route(cluster(), timeout=15.0, explicit=False), clock, deadline=101.0).call.bounds_body


def test_a_try_that_runs_into_its_own_time_is_followed_by_another(clock: ManualClock) -> None:
    rule = route(cluster(), timeout=3.0, retry=RetryPolicy(2, "5xx", per_try_timeout=1.0))
    hand = Hand(rule, clock)
    assert hand.send.expires == 101.0
    hand.answer(failed(Failure.TIMEOUT), after=1.0).wait()
    assert hand.send.expires == pytest.approx(clock() + 1.0)
    hand.answer(failed(Failure.TIMEOUT), after=1.0).wait()
    assert hand.send.expires == 103.0


@pytest.mark.parametrize("failure", [Failure.TIMEOUT, Failure.CONNECT_TIMEOUT])
def test_a_timeout_at_the_deadline_is_the_deadline_s(clock: ManualClock, failure: Failure) -> None:
    hand = Hand(route(cluster(), timeout=1.0), clock).answer(failed(failure), after=1.0)
    assert hand.outcome.failure is Failure.DEADLINE


def test_without_endpoints_nothing_is_sent(clock: ManualClock) -> None:
    hand = Hand(route(cluster(0)), clock)
    assert hand.outcome.failure is Failure.NO_ENDPOINTS
    assert hand.said() == []


def test_the_limit_of_requests_holds_until_a_body_has_ended(clock: ManualClock) -> None:
    to = cluster(limits=Limits(requests=1))
    first = Hand(route(to), clock).answer(ok())
    second = Hand(route(to), clock)
    assert second.outcome.failure is Failure.OVERFLOW
    release(first.outcome)
    assert Hand(route(to), clock).send


def test_the_limit_of_retries_counts_those_that_still_wait(clock: ManualClock) -> None:
    to = cluster(limits=Limits(retries=1))
    waiting = Hand(route(to), clock).answer(failed())
    assert Hand(route(to), clock).answer(failed()).outcome.failure is Failure.RESET
    waiting.wait().answer(ok())
    assert to.state.retries.inside == 0
    assert Hand(route(to), clock).answer(failed()).backoff


def test_a_retry_the_budget_refuses_gives_its_place_back(clock: ManualClock) -> None:
    to = cluster(limits=Limits(retries=1), budget=NO_BUDGET)
    Hand(route(to), clock).answer(failed())
    assert to.state.retries.inside == 0


def test_failures_eject_an_endpoint(clock: ManualClock) -> None:
    to = cluster(outlier=OutlierPolicy(server_errors=1))
    hand = Hand(route(to, retry=None), clock)
    endpoint = hand.send.endpoint
    hand.answer(status(500))
    assert endpoint.ejected_until == 130.0


def test_classification_comes_before_the_latency_sample(clock: ManualClock) -> None:
    to = cluster(1)
    Hand(route(to, retry=None), clock).answer(status(500), after=0.001)
    assert to.endpoints[0].latency(clock()) == 5.0


def test_the_split_is_above_the_retry(clock: ManualClock) -> None:
    one, other = cluster(), cluster()
    split = RoutePlan("default", "reviews", split=Split((one, other), (50, 50), (50, 100), (None, None)))
    for draw, chosen in ((0.49, one), (0.5, other)):
        hand = Hand(split, clock, random=lambda draw=draw: draw)  # type: ignore[misc]
        for _ in range(2):
            assert hand.send.endpoint in chosen.endpoints
            hand.answer(failed()).wait()
        assert hand.call.cluster is chosen


def test_the_evidence_names_everything_in_order(clock: ManualClock) -> None:
    hand = Hand(route(cluster()), clock, version="v7")
    hand.answer(status(503), after=0.25).wait().answer(failed(Failure.CONNECT), after=0.5)
    evidence = hand.wait().answer(ok()).call.evidence(clock())
    assert (evidence.host, evidence.route, evidence.cluster, evidence.version) == (
        "reviews",
        "default",
        "reviews",
        "v7",
    )
    assert [attempt.outcome for attempt in evidence.attempts] == ["503", "connect-failure", "200"]
    assert [attempt.seconds for attempt in evidence.attempts] == pytest.approx([0.25, 0.5, 0.0])
    assert evidence.attempts[1].started == pytest.approx(0.2625)
    assert len({attempt.endpoint for attempt in evidence.attempts}) == 3
