"""The circuit breaker of a cluster: closed, open, half-open.

Closed, it counts; open, it refuses for a while; half-open, it lets a bounded number of probes through and believes
them. Error rate over a window as in Resilience4j and Hystrix, or consecutive failures as in pybreaker. A cancelled
probe gives its place back, or the cluster would stay dark for ever.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from threading import RLock
from typing import NamedTuple

from meshlib.state.endpoint import ABANDONED, SUCCESS, Verdict
from meshlib.state.window import Window

__all__ = ["BreakerPolicy", "BreakerState", "CircuitBreaker"]


class BreakerState(enum.Enum):
    """The values are pybreaker's words."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


CLOSED, OPEN, HALF_OPEN = BreakerState


class BreakerPolicy(NamedTuple):
    """The parameters, as an OutboundPolicy's `circuitBreaker` names them.

    Attributes:
        error_percent: opens at this share of failures; None: not by share.
        minimum_calls: in the window before the share says anything.
        window: seconds.
        consecutive_failures: opens after so many in a row; None: not by streak.
        open_for: seconds it stays open the first time; doubled each time the probes fail.
        max_open_for: seconds it stays open at the most.
        half_open_calls: probes that may be out at once, and that must succeed to close it.
    """

    error_percent: float | None = 50.0
    minimum_calls: int = 20
    window: float = 10.0
    consecutive_failures: int | None = None
    open_for: float = 5.0
    max_open_for: float = 30.0
    half_open_calls: int = 1


class CircuitBreaker:
    """Thread-safe; its lock is never held during a call, so that calls don't wait for each other.

    Args:
        name: of the cluster.

    Attributes:
        on_change: called with (breaker, old, new) after a change, outside the lock.
        on_result: called after each attempt that was neither abandoned nor late, with whether it was good.
        refused: how many attempts it has turned away.
    """

    __slots__ = (
        "_generation",
        "_lock",
        "_open_for",
        "_probes_good",
        "_probes_out",
        "_reopens_at",
        "_streak",
        "_window",
        "name",
        "on_change",
        "on_result",
        "refused",
        "state",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = CLOSED
        self.on_change: Callable[[CircuitBreaker, BreakerState, BreakerState], None] | None = None
        self.on_result: Callable[[bool], None] | None = None
        self.refused = 0
        # Reentrant, for a forgotten call may be collected, and give its permit back, while we hold it.
        self._lock = RLock()
        self._generation = 0
        self._window = Window(BreakerPolicy().window)
        self._streak = 0
        self._open_for = 0.0
        self._reopens_at = 0.0
        self._probes_out = 0
        self._probes_good = 0

    @property
    def failures(self) -> int:
        """Failures in the window."""
        return self._window.first

    def retry_at(self) -> float:
        """The monotonic instant at which an open breaker lets a probe through."""
        return self._reopens_at

    def admit(self, policy: BreakerPolicy, now: float) -> int | None:
        """Ask to send one attempt.

        Returns:
            A permit to hand to `settle`, or None when the breaker refuses.
        """
        # Read before the state: should that change in between, this is a permit that counts for nothing.
        permit: int | None = self._generation
        if self.state is CLOSED:
            return permit
        changed = False
        with self._lock:
            if self.state is OPEN and now >= self._reopens_at:
                self._become(HALF_OPEN)
                changed = True
            permit = self._generation
            if self.state is OPEN:
                permit = None
            elif self.state is HALF_OPEN:
                if self._probes_out + self._probes_good >= policy.half_open_calls:
                    permit = None
                else:
                    self._probes_out += 1
            if permit is None:
                self.refused += 1
        if changed:
            self._tell(OPEN)
        return permit

    def settle(self, policy: BreakerPolicy, permit: int, verdict: Verdict, now: float) -> None:
        """Record what an admitted attempt counts as; a permit from before the last change counts for nothing."""
        with self._lock:
            before = self.state
            if permit != self._generation:
                return
            if before is HALF_OPEN:
                self._settle_probe(policy, verdict, now)
            elif verdict is not ABANDONED:
                self._settle_closed(policy, verdict is SUCCESS, now)
            after = self.state
        if self.on_result is not None and verdict is not ABANDONED:
            self.on_result(verdict is SUCCESS)
        if after is not before:
            self._tell(before)

    def force(self, state: BreakerState, now: float, open_for: float) -> None:
        """Take over a state decided elsewhere (a shared storage, an operator)."""
        with self._lock:
            before = self.state
            if before is state:
                return
            self._open_for = open_for
            self._become(state, now + open_for)
        self._tell(before)

    def _settle_closed(self, policy: BreakerPolicy, good: bool, now: float) -> None:
        if self._window.seconds != policy.window:
            self._window = Window(policy.window)
        window = self._window
        if good:
            window.add(now, 0, 1)
            self._streak = 0
            return
        window.add(now, 1, 1)
        self._streak += 1
        failures, calls = window.first, window.second
        by_share = (
            policy.error_percent is not None
            and calls >= policy.minimum_calls
            and failures * 100.0 >= policy.error_percent * calls
        )
        by_streak = policy.consecutive_failures is not None and self._streak >= policy.consecutive_failures
        if by_share or by_streak:
            self._open_for = policy.open_for
            self._become(OPEN, now + self._open_for)

    def _settle_probe(self, policy: BreakerPolicy, verdict: Verdict, now: float) -> None:
        self._probes_out -= 1
        if verdict is SUCCESS:
            self._probes_good += 1
            if self._probes_good >= policy.half_open_calls:
                self._become(CLOSED)
        elif verdict is not ABANDONED:
            self._open_for = min(max(self._open_for, policy.open_for) * 2.0, policy.max_open_for)
            self._become(OPEN, now + self._open_for)

    def _become(self, state: BreakerState, reopens_at: float = 0.0) -> None:
        self.state = state
        self._generation += 1
        self._reopens_at = reopens_at
        self._probes_out = self._probes_good = 0
        self._streak = 0
        self._window.clear()

    def _tell(self, before: BreakerState) -> None:
        if self.on_change is not None:
            self.on_change(self, before, self.state)
