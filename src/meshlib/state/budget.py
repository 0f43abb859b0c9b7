"""The retry budget: a limit on extra attempts as a share of calls."""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

from meshlib.state.window import Window

__all__ = ["BudgetPolicy", "RetryBudget"]


class BudgetPolicy(NamedTuple):
    """How many extra attempts the calls of the last seconds pay for.

    The defaults are Finagle's and Linkerd's: 20 % of calls, and 10 a second besides so that a quiet client can retry.

    Attributes:
        percent: of calls.
        min_per_second: paid for whatever the number of calls.
        window: seconds.
    """

    percent: float = 20.0
    min_per_second: float = 10.0
    window: float = 10.0


class RetryBudget:
    """What is left, by what happened in the window. Never negative; credited once per call, never per attempt."""

    __slots__ = ("_lock", "_window", "refused")

    def __init__(self) -> None:
        self._lock = Lock()
        self._window = Window(BudgetPolicy().window)
        self.refused = 0
        """How many extra attempts the budget has prevented."""

    def credit(self, policy: BudgetPolicy, now: float) -> None:
        """A call begins."""
        with self._lock:
            window = self._window
            if window.seconds != policy.window:
                window = self._window_for(policy)
            window.add(now, 1, 0)

    def balance(self, policy: BudgetPolicy, now: float) -> float:
        """How many extra attempts are paid for at `now`."""
        with self._lock:
            return self._balance(policy, now)

    def withdraw(self, policy: BudgetPolicy, now: float) -> bool:
        """Take one extra attempt if it is paid for."""
        with self._lock:
            if self._balance(policy, now) < 1.0:
                self.refused += 1
                return False
            self._window.add(now, 0, 1)
            return True

    def _balance(self, policy: BudgetPolicy, now: float) -> float:
        window = self._window_for(policy)
        window.roll(now)
        return max(0.0, window.first * policy.percent / 100.0 + policy.min_per_second * policy.window - window.second)

    def _window_for(self, policy: BudgetPolicy) -> Window:
        """The window, begun afresh when a new plan changed its length."""
        if self._window.seconds != policy.window:
            self._window = Window(policy.window)
        return self._window
