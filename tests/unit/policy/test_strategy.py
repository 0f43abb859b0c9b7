"""Strategies of the user's own, in tenacity's words."""

from __future__ import annotations

import tenacity

from meshlib.policy.outcome import Failure, Outcome
from meshlib.policy.retry import RetryPolicy
from meshlib.policy.strategy import RetryStrategy


def policy(**strategy: object) -> RetryPolicy:
    return RetryPolicy(2, "5xx", strategy=RetryStrategy(**strategy))  # type: ignore[arg-type]


def backoff(policy: RetryPolicy, retry: int, *, now: float = 0.0, retry_after: float | None = None) -> float | None:
    return policy.backoff(retry, Outcome(503, retry_after=retry_after), lambda: 0.5, 0.0, now)


def test_a_wait_strategy_replaces_the_backoff() -> None:
    waits = [backoff(policy(wait=tenacity.wait_exponential(multiplier=0.1)), retry) for retry in (1, 2, 3)]
    assert waits == [0.1, 0.2, 0.4]


def test_retry_after_is_still_the_least() -> None:
    assert backoff(policy(wait=tenacity.wait_fixed(0.1)), 1, retry_after=2.0) == 2.0
    assert backoff(policy(wait=tenacity.wait_fixed(0.1)), 1, retry_after=-1.0) is None


def test_a_stop_strategy_replaces_the_number_of_attempts() -> None:
    five = policy(stop=tenacity.stop_after_attempt(5))
    assert five.allows(4)
    assert backoff(five, 4) is not None
    assert backoff(five, 5) is None


def test_without_a_stop_strategy_the_routes_attempts_hold() -> None:
    assert not policy(wait=tenacity.wait_fixed(0.1)).allows(3)


def test_a_stop_strategy_knows_how_long_the_call_has_lasted() -> None:
    patient = policy(stop=tenacity.stop_after_delay(10))
    assert backoff(patient, 1, now=9.0) is not None
    assert backoff(patient, 1, now=11.0) is None


def test_strategies_combine_as_tenacity_combines_them() -> None:
    both = policy(stop=tenacity.stop_after_attempt(9) | tenacity.stop_after_delay(3))
    assert backoff(both, 2, now=4.0) is None


def test_a_strategy_may_look_at_what_went_wrong() -> None:
    def wait(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        return 1.0 if state.outcome.failed else 0.0

    failed = Outcome(failure=Failure.RESET, error=ConnectionResetError())
    assert policy(wait=wait).backoff(1, failed, lambda: 0.5) == 1.0
    assert backoff(policy(wait=wait), 1) == 0.0
