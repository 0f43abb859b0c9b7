"""Whether an attempt is worth a further one, and how long to wait before it.

The words of `retryOn` are Envoy's (`x-envoy-retry-on`). To them meshlib adds one rule that no word can lift: a request
is sent again only where that is safe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshlib.policy.outcome import Failure, Outcome
from meshlib.policy.strategy import RetryStrategy

__all__ = ["DEFAULT_RETRY", "IDEMPOTENT_METHODS", "RetryPolicy", "full_jitter"]

IDEMPOTENT_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
"""RFC 9110, 9.2.2."""

BACKOFF_BASE = 0.025
BACKOFF_CAP = 0.250
"""Seconds; Envoy's `router_filter`: full jitter in [0, (2^N − 1)·25 ms), capped at 250 ms."""

RETRY_AFTER_CAP = 300.0
"""Seconds; Linkerd's cap on what an endpoint may ask for."""

_CONNECT = frozenset((Failure.CONNECT, Failure.CONNECT_TIMEOUT, Failure.TLS))
_BROKEN = frozenset((Failure.RESET, Failure.TIMEOUT, Failure.PROTOCOL))
_ANY = _CONNECT | _BROKEN
_FAILURES: dict[str, frozenset[Failure]] = {
    "5xx": _ANY,
    "gateway-error": _ANY,
    "reset": _BROKEN,
    "connect-failure": _CONNECT,
}
_STATUSES: dict[str, frozenset[int]] = {
    "5xx": frozenset(range(500, 600)),
    "gateway-error": frozenset((502, 503, 504)),
    "retriable-4xx": frozenset((409,)),
}
_UNSENT = frozenset(("reset-before-request", "refused-stream"))


class Resendable(Protocol):
    """What a decision needs to know of the call."""

    idempotent: bool

    def replayable(self) -> bool:
        """Whether the body can be sent (again) from its start."""


class RetryPolicy:
    """When to try again, compiled from `retries`.

    Attributes:
        attempts: further attempts after the first.
        failures: failures worth a retry.
        statuses: statuses worth a retry.
        unsent: whether any failure before a byte was sent is worth one.
        per_try_timeout: seconds an attempt may take to its response head; None: no bound of its own.
        base: seconds, the unit of the backoff.
        avoid_tried: whether hosts tried before are avoided.
        strategy: of the user's own, in place of backoff and attempts; None: none.
    """

    __slots__ = (
        "attempts",
        "avoid_tried",
        "base",
        "failures",
        "per_try_timeout",
        "statuses",
        "strategy",
        "unsent",
        "words",
    )

    def __init__(
        self,
        attempts: int,
        words: str,
        *,
        per_try_timeout: float | None = None,
        base: float | None = None,
        avoid_tried: bool = True,
        strategy: RetryStrategy | None = None,
    ) -> None:
        names = [word.strip() for word in words.split(",") if word.strip()]
        self.attempts = attempts
        self.words = ",".join(names)
        self.failures = frozenset[Failure]().union(*(_FAILURES.get(name, frozenset()) for name in names))
        self.statuses = frozenset[int]().union(*(_STATUSES.get(name, frozenset()) for name in names)) | {
            int(name) for name in names if name.isdigit()
        }
        self.unsent = not _UNSENT.isdisjoint(names)
        self.per_try_timeout = per_try_timeout
        self.base = BACKOFF_BASE if base is None else base
        self.avoid_tried = avoid_tried
        self.strategy = strategy

    def allows(self, retry: int) -> bool:
        """Whether retry number `retry` (1 is the first) may be at all; a strategy that stops decides in `backoff`."""
        return retry <= self.attempts or (self.strategy is not None and self.strategy.stop is not None)

    def wants(self, outcome: Outcome, call: Resendable) -> bool:
        """Whether this outcome is worth a further attempt that is safe to send."""
        failure = outcome.failure
        if failure is None:
            worth = outcome.status in self.statuses
        else:
            worth = failure in self.failures or (self.unsent and not outcome.sent and failure in _ANY)
        return worth and (call.idempotent or not outcome.sent) and call.replayable()

    def backoff(
        self, retry: int, outcome: Outcome, random: Callable[[], float], started: float = 0.0, now: float = 0.0
    ) -> float | None:
        """Seconds to wait before retry number `retry` (1 is the first); None: there is to be none.

        `Retry-After` is honoured as a floor up to 300 s; negative or unreadable means never (gRPC A6).

        Args:
            retry: 1 before the second attempt.
            outcome: of the last attempt.
            random: uniform in [0, 1).
            started: monotonic seconds at which the call began, for strategies that count time.
            now: monotonic seconds.
        """
        wait: float | None = full_jitter(retry, self.base, random)
        if self.strategy is not None and wait is not None:
            wait = self.strategy.backoff(retry, outcome, started, now, wait)
        asked = outcome.retry_after
        if asked is None or wait is None:
            return wait
        return None if asked < 0 else max(wait, min(asked, RETRY_AFTER_CAP))


def full_jitter(retry: int, base: float, random: Callable[[], float]) -> float:
    """Envoy's backoff: uniform in [0, (2^N − 1)·base), at most ten times the base."""
    return random() * min((2.0 ** min(retry, 30) - 1.0) * base, base * (BACKOFF_CAP / BACKOFF_BASE))


DEFAULT_WORDS = "connect-failure,refused-stream,reset,503"
DEFAULT_RETRY = RetryPolicy(2, DEFAULT_WORDS)
"""When a route names none. Istio's default is 2 attempts on connect-failure, refused-stream, unavailable, cancelled; it
gave up 503 because a proxy can't know which requests are safe to send again. Here a request that isn't idempotent is
never sent twice, so 503 and reset are in (see docs/decisions/0003-default-retries.md)."""
