"""What an outcome counts as."""

from __future__ import annotations

from meshlib.policy.outcome import Outcome
from meshlib.state.endpoint import FAILURE, REJECTED, SUCCESS, Verdict

__all__ = ["classify"]


def classify(outcome: Outcome) -> Verdict:
    """Judge the endpoint by what came back: 5xx and local failures count against it, everything else for it.

    A 503 with `Retry-After` is an endpoint that is alive and says "not now": REJECTED.
    """
    if outcome.failure is not None:
        return FAILURE
    if outcome.status < 500:
        return SUCCESS
    return REJECTED if outcome.status == 503 and outcome.retry_after is not None else FAILURE
