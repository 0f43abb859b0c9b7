"""The kinds of our own, under meshlib/v1: what Istio has no word for."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from meshlib.resources.units import Percentage, Range, Seconds

__all__ = ["CircuitBreaker", "FailoverDestination", "Hedging", "OutboundPolicySpec", "OutboundRetryBudget"]

_AtLeastOne = Annotated[int, Range(1, 2**32 - 1)]


class _Message(msgspec.Struct, frozen=True, rename="camel"):
    """A message under meshlib/v1: immutable, in camel case on the wire."""


class CircuitBreaker(_Message, frozen=True):
    """Opens on a share of failures in a window, or on failures in a row. Defaults: Resilience4j and Hystrix.

    Attributes:
        error_percent: opens when this share of the calls in `window` failed; None judges no share.
        minimum_calls: fewer calls in `window` than this judge nothing.
        window: seconds looked back.
        consecutive_failures: opens after so many failures in a row; None doesn't count them.
        open_for: seconds it stays open the first time; doubled each time a probe fails, up to `max_open_for`.
        max_open_for: seconds.
        half_open_calls: probes let through at one time while half-open.
    """

    error_percent: Percentage | None = 50.0
    minimum_calls: _AtLeastOne = 20
    window: Seconds = 10.0
    consecutive_failures: _AtLeastOne | None = None
    open_for: Seconds = 5.0
    max_open_for: Seconds = 30.0
    half_open_calls: _AtLeastOne = 1


class OutboundRetryBudget(_Message, frozen=True):
    """Retries and hedges as a share of calls. Defaults: Finagle's RetryBudget.

    Attributes:
        percent: of the calls in `window`; up to 1000.
        min_retries_per_second: allowed however few calls there are.
        window: seconds a call's credit lasts.
    """

    percent: Annotated[float, Range(0, 1000)] = 20.0
    min_retries_per_second: Annotated[float, Range(0, 1e6)] = 10.0
    window: Seconds = 10.0


class Hedging(_Message, frozen=True):
    """A second request beside a slow first. Defaults: Finagle's BackupRequestFilter.

    Attributes:
        delay: seconds after which the second is sent; None waits for `percentile` of the latency seen.
        percentile: of latency, 0 to 100.
        min_delay: seconds, the least wait when `percentile` decides.
        max_extra_percent: hedges as a share of calls.
    """

    delay: Seconds | None = None
    percentile: Percentage = 99.0
    min_delay: Seconds = 0.001
    max_extra_percent: Percentage = 1.0


class FailoverDestination(_Message, frozen=True):
    """Where calls go while a destination has no healthy endpoint: a host, or one subset of it."""

    host: str
    subset: str | None = None


class OutboundPolicySpec(_Message, frozen=True):
    """How calls to `host` (or one subset of it) are made. None leaves a feature off or to Istio's documents.

    Attributes:
        deadline: seconds a whole call may take, retries, backoff and hedges included.
        panic_threshold: percent of healthy endpoints below which health is ignored.
        failover: destinations to use instead, in order, while this one has no healthy endpoint.
        always_eject_one: whether outlier detection may eject one endpoint whatever `maxEjectionPercent` says.
    """

    host: str
    subset: str | None = None
    load_balancer: Literal["ROUND_ROBIN", "RANDOM", "LEAST_REQUEST", "PEAK_EWMA"] | None = None
    circuit_breaker: CircuitBreaker | None = None
    retry_budget: OutboundRetryBudget | None = None
    hedging: Hedging | None = None
    deadline: Seconds | None = None
    panic_threshold: Percentage | None = None
    always_eject_one: bool | None = None
    failover: tuple[FailoverDestination, ...] = ()
