from __future__ import annotations

import pytest

from meshlib.policy.classify import classify
from meshlib.policy.outcome import Failure, Outcome
from meshlib.state.endpoint import Verdict


@pytest.mark.parametrize("status", [100, 200, 204, 301, 404, 409, 429, 499])
def test_whatever_is_not_5xx_speaks_for_the_endpoint(status: int) -> None:
    assert classify(Outcome(status)) is Verdict.SUCCESS


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 599])
def test_5xx_speaks_against_it(status: int) -> None:
    assert classify(Outcome(status)) is Verdict.FAILURE


@pytest.mark.parametrize("failure", list(Failure))
def test_a_failure_speaks_against_it(failure: Failure) -> None:
    assert classify(Outcome(failure=failure)) is Verdict.FAILURE


def test_a_503_that_says_when_to_come_back_is_a_refusal_by_somebody_alive() -> None:
    assert classify(Outcome(503, retry_after=1.0)) is Verdict.REJECTED
    assert classify(Outcome(500, retry_after=1.0)) is Verdict.FAILURE
