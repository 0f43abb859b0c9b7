"""The settings of DestinationRule and OutboundPolicy as the policies of a cluster."""

from __future__ import annotations

import math
from typing import TypeVar

from meshlib.plan.cluster import HedgePolicy, Limits
from meshlib.policy.balance import PANIC_THRESHOLD, PICKERS
from meshlib.policy.hashing import Maglev, RingHash
from meshlib.resources import OutboundPolicySpec, OutlierDetection, TrafficPolicy
from meshlib.state.breaker import BreakerPolicy
from meshlib.state.budget import BudgetPolicy
from meshlib.state.outlier import DEFAULT_OUTLIER, OutlierPolicy

__all__ = ["balancer", "breaker", "budget", "hedge", "limits", "outlier", "over", "panic"]

T = TypeVar("T")
UNLIMITED = 2**32 - 1
"""Envoy's and Istio's "no limit"."""


def over(base: TrafficPolicy, own: TrafficPolicy | None) -> TrafficPolicy:
    """A subset's settings override the rule's, group by group."""
    if own is None:
        return base
    return TrafficPolicy(
        load_balancer=own.load_balancer or base.load_balancer,
        connection_pool=own.connection_pool or base.connection_pool,
        outlier_detection=own.outlier_detection or base.outlier_detection,
        tls=own.tls or base.tls,
        retry_budget=own.retry_budget or base.retry_budget,
    )


def balancer(policy: TrafficPolicy, outbound: OutboundPolicySpec) -> str:
    """The name of the picker: the OutboundPolicy's goes before the DestinationRule's, consistent hashing too."""
    if outbound.load_balancer is not None:
        return outbound.load_balancer
    if policy.load_balancer is None:
        return "LEAST_REQUEST"
    hashed, simple = policy.load_balancer.consistent_hash, policy.load_balancer.simple
    if hashed is not None:
        return RingHash.name if hashed.maglev is None else Maglev.name
    return simple if simple in PICKERS else "LEAST_REQUEST"


def panic(policy: TrafficPolicy, outbound: OutboundPolicySpec, default: float = PANIC_THRESHOLD) -> float:
    """Percent of available endpoints below which health is ignored; `default` where no document says."""
    if outbound.panic_threshold is not None:
        return outbound.panic_threshold
    outlier = policy.outlier_detection
    if outlier is not None and outlier.min_health_percent is not None:
        return float(outlier.min_health_percent)
    return default


def limits(policy: TrafficPolicy) -> Limits:
    """A connection carries one request at a time: connections plus requests waiting bound what is in flight."""
    pool = policy.connection_pool
    if pool is None:
        return Limits()
    default = Limits()
    tcp, http = pool.tcp, pool.http
    bounds = [UNLIMITED]
    if tcp is not None and tcp.max_connections:
        waiting = http.http1_max_pending_requests if http is not None else None
        bounds.append(tcp.max_connections + (waiting or UNLIMITED))
    if http is not None and http.http2_max_requests:
        bounds.append(http.http2_max_requests)
    requests = min(bounds)
    idle = http.idle_timeout if http is not None else None
    if idle is None:
        idle = tcp.idle_timeout if tcp is not None else None
    return Limits(
        requests=requests if requests < UNLIMITED else None,
        retries=http.max_retries if http is not None and http.max_retries else None,
        connect_timeout=(tcp.connect_timeout if tcp is not None else None) or default.connect_timeout,
        idle_timeout=default.idle_timeout if idle is None else idle or math.inf,
        requests_per_connection=(http.max_requests_per_connection if http is not None else None) or 0,
    )


def budget(policy: TrafficPolicy, outbound: OutboundPolicySpec) -> BudgetPolicy:
    """The DestinationRule's `retryBudget`, else the OutboundPolicy's, else the default."""
    if policy.retry_budget is not None:
        own = policy.retry_budget
        return BudgetPolicy(own.percent, float(own.min_retry_concurrency))
    if outbound.retry_budget is not None:
        budget = outbound.retry_budget
        return BudgetPolicy(budget.percent, budget.min_retries_per_second, budget.window)
    return BudgetPolicy()


def outlier(detection: OutlierDetection | None, outbound: OutboundPolicySpec) -> OutlierPolicy:
    """As `outlierDetection` has it, with Envoy's defaults for what it leaves out; without it, DEFAULT_OUTLIER."""
    default = OutlierPolicy()
    always_one = _chosen(outbound.always_eject_one, default.always_one)
    if detection is None:
        return DEFAULT_OUTLIER._replace(always_one=always_one)
    return OutlierPolicy(
        server_errors=_chosen(detection.consecutive_5xx_errors, default.server_errors),
        gateway_errors=_chosen(detection.consecutive_gateway_errors, default.gateway_errors),
        local_failures=_chosen(detection.consecutive_local_origin_failures, default.local_failures),
        split=bool(detection.split_external_local_origin_errors),
        interval=_chosen(detection.interval, default.interval),
        base=_chosen(detection.base_ejection_time, default.base),
        max_percent=_chosen(detection.max_ejection_percent, default.max_percent),
        always_one=always_one,
    )


def breaker(outbound: OutboundPolicySpec) -> BreakerPolicy | None:
    """The circuit breaker, None without one."""
    own = outbound.circuit_breaker
    if own is None:
        return None
    return BreakerPolicy(
        own.error_percent,
        own.minimum_calls,
        own.window,
        own.consecutive_failures,
        own.open_for,
        max(own.max_open_for, own.open_for),
        own.half_open_calls,
    )


def hedge(outbound: OutboundPolicySpec) -> HedgePolicy | None:
    """When to hedge, None for never."""
    own = outbound.hedging
    if own is None:
        return None
    share = BudgetPolicy(percent=own.max_extra_percent, min_per_second=0.0)
    return HedgePolicy(own.delay, own.percentile, own.min_delay, share)


def _chosen(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value
