"""Backoff and stop strategies of the user's own, in tenacity's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshlib.policy.outcome import Outcome

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.stop import StopBaseT
    from tenacity.wait import WaitBaseT

__all__ = ["RetryStrategy"]


class RetryStrategy(NamedTuple):
    """What replaces the built-in backoff and number of attempts. Safety, budget and deadline hold all the same.

    Attributes:
        wait: e.g. `tenacity.wait_exponential_jitter(0.05, 1.0)`; None: Envoy's full jitter.
        stop: e.g. `tenacity.stop_after_attempt(5)`; None: the route's `attempts`.
    """

    wait: WaitBaseT | None = None
    stop: StopBaseT | None = None

    def backoff(self, attempt: int, outcome: Outcome, started: float, now: float, otherwise: float) -> float | None:
        """Seconds to wait after attempt number `attempt`, or None to stop.

        Args:
            attempt: 1 after the first try.
            outcome: of it.
            started: monotonic seconds at which the call began.
            now: monotonic seconds.
            otherwise: the wait without a strategy.
        """
        state = _call_state(attempt, outcome, started, now)
        state.upcoming_sleep = otherwise if self.wait is None else self.wait(state)
        if self.stop is not None and self.stop(state):
            return None
        return max(0.0, state.upcoming_sleep)


def _call_state(attempt: int, outcome: Outcome, started: float, now: float) -> RetryCallState:
    import tenacity  # whoever has a strategy has imported it

    state = tenacity.RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # unused
    state.attempt_number = attempt
    if outcome.error is not None:
        state.set_exception((type(outcome.error), outcome.error, None))
    else:
        state.set_result(outcome)
    state.start_time = started
    state.outcome_timestamp = now
    return state
