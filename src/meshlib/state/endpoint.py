"""What was observed of one endpoint, and the ticket of one attempt on it."""

from __future__ import annotations

import enum
from math import exp
from threading import RLock

__all__ = [
    "ABANDONED",
    "EWMA_DECAY",
    "EWMA_SEED",
    "FAILURE",
    "REJECTED",
    "SUCCESS",
    "EndpointState",
    "Limit",
    "Ticket",
    "Verdict",
]

EWMA_DECAY = 10.0
"""Seconds in which an old latency loses 63 % of its say (τ of Finagle's PeakEwma)."""

EWMA_SEED = 0.030
"""Seconds an endpoint nobody has tried is taken to need: 0 would draw a stampede (Linkerd's default round trip)."""

FAILURE_PENALTY = 5.0
"""Seconds a failure counts as, so that a fast failure doesn't look fast (Linkerd)."""

PENALTY_CAP = 300.0


class Verdict(enum.Enum):
    """What an outcome counts as."""

    SUCCESS = "success"
    FAILURE = "failure"
    REJECTED = "rejected"
    """The endpoint said no for want of capacity; it is alive."""
    ABANDONED = "abandoned"
    """Cancelled by the caller: neither good nor bad."""


SUCCESS, FAILURE, REJECTED, ABANDONED = Verdict
"""For the path of a call: on CPython 3.11 a member of an enum costs seven times a global to look up."""


class EndpointState:
    """Observations of one endpoint within one cluster. Parameters live in the plan; this survives a plan swap.

    Attributes:
        host, port: where it is dialled.
        address: both as one text, brackets around an IPv6 address.
        active: attempts begun and not yet released.
        begun: attempts ever begun.
        ejected_until: monotonic seconds up to which outlier detection keeps it out; 0.0 when it is in.
    """

    __slots__ = (
        "_cost",
        "_stamp",
        "active",
        "address",
        "begun",
        "ejected_until",
        "ejections",
        "gateway_errors",
        "host",
        "local_failures",
        "lock",
        "port",
        "returned_at",
        "server_errors",
    )

    def __init__(self, host: str, port: int, now: float) -> None:
        self.host = host
        self.port = port
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        # Reentrant, for a forgotten response may be collected, and release its ticket, while we hold it.
        self.lock = RLock()
        self.active = 0
        self.begun = 0
        self.ejected_until = 0.0
        self.ejections = 0
        self.returned_at = 0.0
        self.server_errors = 0
        self.gateway_errors = 0
        self.local_failures = 0
        self._cost = EWMA_SEED
        self._stamp = now

    def __repr__(self) -> str:
        return f"<EndpointState {self.address} active={self.active}>"

    def begin(self, now: float) -> Ticket:
        """Begin an attempt at `now`; the ticket must be settled and released, whatever happens."""
        with self.lock:
            self.active += 1
            self.begun += 1
        return Ticket(self, now)

    def latency(self, now: float) -> float:
        """The peak-sensitive moving average of the latency, in seconds, faded to `now`."""
        idle = now - self._stamp
        return self._cost * exp(-idle / EWMA_DECAY) if idle > 0 else self._cost

    def _observe(self, seconds: float, now: float) -> None:
        """Jump to a latency above the average, drift towards one below (Finagle's PeakEwma)."""
        elapsed = now - self._stamp
        weight = exp(-elapsed / EWMA_DECAY) if elapsed > 0 else 1.0
        self._cost = seconds if seconds > self._cost else self._cost * weight + seconds * (1.0 - weight)
        self._stamp = now


class Ticket:
    """One attempt on one endpoint: settled at the response head or the error, released when the body ends.

    Both happen exactly once; a second `settle` or `release` does nothing, and what is released unsettled is ABANDONED.
    """

    __slots__ = ("_counted", "began", "endpoint", "released", "settled", "verdict")

    def __init__(self, endpoint: EndpointState, began: float) -> None:
        self.endpoint = endpoint
        self.began = began
        self.verdict = ABANDONED
        self.settled = False
        self.released = False
        self._counted: Limit | None = None

    def count(self, limit: Limit) -> None:
        """Give back one place of `limit` when this ticket is released."""
        self._counted = limit

    def settle(self, verdict: Verdict, now: float, penalty: float = 0.0) -> None:
        """Record what the attempt counts as.

        Args:
            verdict: classification comes before the latency sample, so that a fast 503 doesn't look fast.
            now: monotonic seconds.
            penalty: seconds the endpoint asked us to stay away (`Retry-After`).
        """
        endpoint = self.endpoint
        with endpoint.lock:
            if self.settled:
                return
            self.settled = True
            self.verdict = verdict
            if verdict is SUCCESS:
                endpoint._observe(now - self.began, now)
            elif verdict is not ABANDONED:
                endpoint._observe(min(max(penalty, FAILURE_PENALTY), PENALTY_CAP), now)

    def release(self) -> None:
        """End the attempt: the endpoint has one less in flight."""
        if self.released:
            return
        endpoint = self.endpoint
        with endpoint.lock:
            if self.released:
                return
            self.released = True
            endpoint.active -= 1
            self.settled = True
        if self._counted is not None:
            self._counted.leave()


class Limit:
    """How many may be inside at once; the bound is passed in, for it belongs to the plan."""

    __slots__ = ("_lock", "inside")

    def __init__(self) -> None:
        self._lock = RLock()  # reentrant, as an endpoint's
        self.inside = 0

    def enter(self, most: float) -> bool:
        """Take a place if fewer than `most` are taken."""
        with self._lock:
            if self.inside >= most:
                return False
            self.inside += 1
            return True

    def leave(self) -> None:
        """Give a place back."""
        with self._lock:
            self.inside -= 1
