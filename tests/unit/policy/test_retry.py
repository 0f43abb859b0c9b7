from __future__ import annotations

import random

import pytest

from meshlib.call.call import REPLAY_LIMIT, Body, Call
from meshlib.policy.outcome import Failure, Outcome
from meshlib.policy.retry import DEFAULT_RETRY, RetryPolicy, full_jitter

CONNECT = {Failure.CONNECT, Failure.CONNECT_TIMEOUT, Failure.TLS}
BROKEN = {Failure.RESET, Failure.TIMEOUT, Failure.PROTOCOL}
OURS = {Failure.NO_ENDPOINTS, Failure.CIRCUIT_OPEN, Failure.OVERFLOW, Failure.DEADLINE}
STATUSES = [200, 404, 409, 429, 500, 501, 502, 503, 504, 507]


GET, POST = Call("reviews", 0.0), Call("reviews", 0.0, idempotent=False)
GONE = Call("reviews", 0.0, body=Body(REPLAY_LIMIT + 1))


@pytest.mark.parametrize(
    ("words", "statuses", "failures"),
    [
        ("5xx", {500, 501, 502, 503, 504, 507}, CONNECT | BROKEN),
        ("gateway-error", {502, 503, 504}, CONNECT | BROKEN),
        ("reset", set(), BROKEN),
        ("connect-failure", set(), CONNECT),
        ("retriable-4xx", {409}, set()),
        ("429,503", {429, 503}, set()),
        ("connect-failure, 500", {500}, CONNECT),
        ("reset-before-request", set(), set()),
        ("", set(), set()),
    ],
)
def test_each_word_of_retry_on_means_what_envoy_says(words: str, statuses: set[int], failures: set[Failure]) -> None:
    policy = RetryPolicy(2, words)
    assert {status for status in STATUSES if policy.wants(Outcome(status), GET)} == statuses
    assert {failure for failure in Failure if policy.wants(Outcome(failure=failure), GET)} == failures


@pytest.mark.parametrize("words", ["reset-before-request", "refused-stream"])
@pytest.mark.parametrize("failure", sorted(CONNECT | BROKEN))
def test_two_words_take_whatever_was_never_sent(words: str, failure: Failure) -> None:
    assert RetryPolicy(2, words).wants(Outcome(failure=failure, sent=False), POST)


@pytest.mark.parametrize("failure", sorted(OURS))
def test_what_was_refused_here_is_never_tried_again(failure: Failure) -> None:
    assert not RetryPolicy(2, "5xx,reset,connect-failure,refused-stream").wants(
        Outcome(failure=failure, sent=False), GET
    )


def test_by_default_two_further_attempts_on_what_is_safe_to_send_again() -> None:
    assert DEFAULT_RETRY.attempts == 2
    assert {failure for failure in Failure if DEFAULT_RETRY.wants(Outcome(failure=failure), GET)} == CONNECT | BROKEN
    assert [status for status in STATUSES if DEFAULT_RETRY.wants(Outcome(status), GET)] == [503]


@pytest.mark.parametrize("outcome", [Outcome(503), Outcome(failure=Failure.RESET), Outcome(failure=Failure.TIMEOUT)])
def test_what_may_have_been_done_is_not_done_twice(outcome: Outcome) -> None:
    assert RetryPolicy(2, "5xx").wants(outcome, GET)
    assert not RetryPolicy(2, "5xx").wants(outcome, POST)


def test_a_post_that_was_never_sent_is_tried_again() -> None:
    assert DEFAULT_RETRY.wants(Outcome(failure=Failure.CONNECT, sent=False), POST)


def test_a_body_that_is_gone_is_not_sent_again() -> None:
    assert not DEFAULT_RETRY.wants(Outcome(503), GONE)
    assert not DEFAULT_RETRY.wants(Outcome(failure=Failure.CONNECT, sent=False), GONE)


@pytest.mark.parametrize(("retry", "bound"), [(1, 0.025), (2, 0.075), (3, 0.175), (4, 0.250), (9, 0.250), (999, 0.250)])
def test_the_backoff_is_anything_from_nothing_to_a_bound_that_grows(retry: int, bound: float) -> None:
    assert full_jitter(retry, 0.025, lambda: 0.0) == 0.0
    assert full_jitter(retry, 0.025, lambda: 1.0) == pytest.approx(bound)
    draws = random.Random(1)
    waits = [full_jitter(retry, 0.025, draws.random) for _ in range(1000)]
    assert max(waits) < bound
    assert sum(waits) / 1000 == pytest.approx(bound / 2, rel=0.1)


def test_another_base_scales_the_bound_and_its_cap() -> None:
    assert RetryPolicy(2, "5xx", base=1.0).backoff(1, Outcome(500), lambda: 1.0) == 1.0
    assert RetryPolicy(2, "5xx", base=1.0).backoff(20, Outcome(500), lambda: 1.0) == 10.0


@pytest.mark.parametrize(("asked", "waited"), [(None, 0.025), (0.0, 0.025), (2.0, 2.0), (3600.0, 300.0), (-1.0, None)])
def test_what_the_endpoint_asks_for_is_a_floor_up_to_five_minutes_and_below_zero_means_never(
    asked: float | None, waited: float | None
) -> None:
    outcome = Outcome(503, retry_after=asked)
    assert DEFAULT_RETRY.backoff(1, outcome, lambda: 1.0) == waited
