from __future__ import annotations

import math
import threading

import pytest

from meshlib.state.endpoint import EWMA_DECAY, EWMA_SEED, EndpointState, Limit, Verdict


@pytest.fixture
def endpoint() -> EndpointState:
    return EndpointState("10.0.0.1", 80, 0.0)


def measure(endpoint: EndpointState, began: float, seconds: float, verdict: Verdict = Verdict.SUCCESS) -> None:
    ticket = endpoint.begin(began)
    ticket.settle(verdict, began + seconds)
    ticket.release()


def test_the_address_has_brackets_around_ipv6() -> None:
    assert EndpointState("10.0.0.1", 80, 0.0).address == "10.0.0.1:80"
    assert EndpointState("::1", 80, 0.0).address == "[::1]:80"


def test_a_ticket_is_in_flight_until_it_is_released(endpoint: EndpointState) -> None:
    ticket = endpoint.begin(0.0)
    assert endpoint.active == 1
    ticket.settle(Verdict.SUCCESS, 0.1)
    assert endpoint.active == 1
    ticket.release()
    assert endpoint.active == 0


def test_a_ticket_is_released_once_however_often_it_is_asked(endpoint: EndpointState) -> None:
    other = endpoint.begin(0.0)
    ticket = endpoint.begin(0.0)
    for _ in range(3):
        ticket.release()
    assert endpoint.active == 1
    other.release()
    assert (endpoint.active, endpoint.begun) == (0, 2)


def test_a_ticket_is_settled_once_however_often_it_is_asked(endpoint: EndpointState) -> None:
    ticket = endpoint.begin(0.0)
    ticket.settle(Verdict.SUCCESS, 0.01)
    ticket.settle(Verdict.FAILURE, 0.02)
    assert ticket.verdict is Verdict.SUCCESS
    assert endpoint.latency(0.02) < EWMA_SEED


def test_what_is_released_unsettled_is_abandoned_for_good(endpoint: EndpointState) -> None:
    ticket = endpoint.begin(0.0)
    ticket.release()
    ticket.settle(Verdict.FAILURE, 1.0)
    assert ticket.verdict is Verdict.ABANDONED
    assert endpoint.latency(0.0) == EWMA_SEED


def test_a_place_in_a_limit_is_given_back_at_release_and_once(endpoint: EndpointState) -> None:
    limit = Limit()
    assert limit.enter(1)
    ticket = endpoint.begin(0.0)
    ticket.count(limit)
    assert not limit.enter(1)
    ticket.release()
    ticket.release()
    assert limit.inside == 0


def test_threads_lose_no_count(endpoint: EndpointState) -> None:
    def work() -> None:
        for _ in range(2000):
            measure(endpoint, 0.0, 0.001)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (endpoint.active, endpoint.begun) == (0, 8000)


def test_an_endpoint_nobody_has_tried_is_taken_to_need_thirty_milliseconds(endpoint: EndpointState) -> None:
    assert endpoint.latency(0.0) == 0.030


def test_a_latency_above_the_average_is_jumped_to(endpoint: EndpointState) -> None:
    measure(endpoint, 0.0, 2.0)
    assert endpoint.latency(2.0) == 2.0


def test_a_latency_below_the_average_is_drifted_to(endpoint: EndpointState) -> None:
    measure(endpoint, 0.0, 2.0)
    measure(endpoint, 6.0, 1.0)
    weight = math.exp(-(7.0 - 2.0) / EWMA_DECAY)
    assert endpoint.latency(7.0) == pytest.approx(2.0 * weight + 1.0 * (1 - weight))


def test_the_average_fades_while_nothing_is_observed(endpoint: EndpointState) -> None:
    measure(endpoint, 0.0, 2.0)
    assert endpoint.latency(2.0 + EWMA_DECAY) == pytest.approx(2.0 / math.e)


@pytest.mark.parametrize("verdict", [Verdict.FAILURE, Verdict.REJECTED])
def test_a_fast_failure_does_not_look_fast(endpoint: EndpointState, verdict: Verdict) -> None:
    measure(endpoint, 0.0, 0.001, verdict)
    assert endpoint.latency(0.001) == 5.0


def test_an_abandoned_attempt_says_nothing_of_the_latency(endpoint: EndpointState) -> None:
    measure(endpoint, 0.0, 9.0, Verdict.ABANDONED)
    assert endpoint.latency(0.0) == EWMA_SEED


@pytest.mark.parametrize(("asked", "penalty"), [(0.0, 5.0), (-1.0, 5.0), (60.0, 60.0), (86400.0, 300.0)])
def test_the_penalty_is_what_the_endpoint_asked_within_five_and_three_hundred_seconds(
    endpoint: EndpointState, asked: float, penalty: float
) -> None:
    endpoint.begin(0.0).settle(Verdict.REJECTED, 0.1, asked)
    assert endpoint.latency(0.1) == penalty


def test_a_limit_never_holds_more_than_it_may() -> None:
    limit = Limit()
    assert [limit.enter(2) for _ in range(3)] == [True, True, False]
    limit.leave()
    assert limit.enter(2)


@pytest.mark.parametrize("held", ["endpoint", "limit"])
def test_a_ticket_collected_while_its_lock_is_held_is_released(endpoint: EndpointState, held: str) -> None:
    limit = Limit()
    assert limit.enter(1)
    ticket = endpoint.begin(0.0)
    ticket.count(limit)

    def collect() -> None:
        with endpoint.lock if held == "endpoint" else limit._lock:
            ticket.release()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(5.0)
    assert (endpoint.active, limit.inside) == (0, 0)
