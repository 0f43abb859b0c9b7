"""Compiling clusters: endpoints joined with the policy of DestinationRule and OutboundPolicy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from meshlib.plan.cluster import Cluster, HedgePolicy, Limits
from meshlib.plan.hosts import Host, Member
from meshlib.policy.balance import PANIC_THRESHOLD, PICKERS
from meshlib.resources import (
    DestinationRuleSpec,
    OutboundPolicySpec,
    OutlierDetection,
    Resource,
    TrafficPolicy,
    fqdn,
)
from meshlib.state.breaker import BreakerPolicy
from meshlib.state.budget import BudgetPolicy
from meshlib.state.outlier import DEFAULT_OUTLIER, OutlierPolicy
from meshlib.state.store import StateStore

__all__ = ["Clusters"]

T = TypeVar("T")
Random = Callable[[], float]
NO_POLICY = TrafficPolicy()
NO_OUTBOUND = OutboundPolicySpec(host="*")
UNLIMITED = 2**32 - 1
"""Envoy's and Istio's "no limit"."""


class Clusters:
    """The clusters of one plan, each compiled when a route first asks for it.

    Args:
        hosts: of the snapshot.
        resources: of the snapshot.
        namespace: of the caller, whose own rules come first.
        store: where states are adopted from.
        now: monotonic seconds.
        random: uniform in [0, 1).
    """

    def __init__(
        self,
        hosts: Mapping[str, Host],
        resources: Iterable[Resource],
        namespace: str,
        store: StateStore,
        now: float,
        random: Random,
    ) -> None:
        self._hosts = hosts
        self._store = store
        self._now = now
        self._random = random
        self._namespace = namespace
        self._rules: dict[str, list[tuple[str, DestinationRuleSpec]]] = {}
        self._policies: dict[str, dict[str, list[tuple[str, OutboundPolicySpec]]]] = {}
        for resource in resources:
            home = resource.metadata.namespace
            if isinstance(resource.spec, DestinationRuleSpec):
                self._rules.setdefault(fqdn(resource.spec.host, home), []).append((home, resource.spec))
            elif isinstance(resource.spec, OutboundPolicySpec):
                policies = self._policies.setdefault(resource.spec.subset or "", {})
                policies.setdefault(fqdn(resource.spec.host, home), []).append((home, resource.spec))
        self.compiled: dict[str, Cluster] = {}

    def get(self, host: str, subset: str | None, asked: int | None, port: int) -> Cluster:
        """The cluster of a host and subset. A host nobody serves has no endpoints, nor has a port it doesn't have.

        Args:
            host: fully qualified.
            subset: its name, None for all endpoints.
            asked: the port a destination names, None where it names none.
            port: of the virtual host whose route it is (0: the only one), for a destination that names none.
        """
        known = self._hosts.get(host)
        if known is None or 0 in known.ports:
            port = 0
        elif asked is not None:
            port = asked
        elif port not in known.ports:
            port = next(iter(known.ports))
        name = host + (f"|{subset or ''}" if subset or port else "") + (f"|{port}" if port else "")
        cluster = self.compiled.get(name)
        if cluster is None:
            members = known.ports.get(port, ()) if known is not None else ()
            home = known.namespace if known is not None else self._namespace
            cluster = self.compiled[name] = self._compile(name, host, subset, members, home)
        return cluster

    def _compile(self, name: str, host: str, subset: str | None, members: tuple[Member, ...], home: str) -> Cluster:
        rule = _applicable(self._rules, host, self._namespace, home)
        policy = rule.traffic_policy or NO_POLICY if rule is not None else NO_POLICY
        labels: Mapping[str, str] = {}
        if rule is not None and subset:
            chosen = next((one for one in rule.subsets if one.name == subset), None)
            if chosen is not None:
                labels = chosen.labels
                policy = _over(policy, chosen.traffic_policy)
        outbound = self._outbound(host, subset, home)
        inside = [member for member in members if labels.items() <= member.labels.items()]
        states = [self._store.endpoint(name, member.host, member.port, self._now) for member in inside]
        picker = PICKERS[_balancer(policy, outbound)](
            states,
            [member.weight for member in inside],
            [member.healthy for member in inside],
            self._random,
            _panic(policy, outbound),
        )
        return Cluster(
            name,
            host,
            subset or "",
            labels,
            picker,
            self._store.cluster(name),
            total=len(members),
            limits=_limits(policy),
            budget=_budget(policy, outbound),
            outlier=_outlier(policy.outlier_detection, outbound),
            breaker=_breaker(outbound),
            hedge=_hedge(outbound),
            deadline=outbound.deadline,
        )

    def _outbound(self, host: str, subset: str | None, home: str) -> OutboundPolicySpec:
        """The OutboundPolicy for a subset, else for its whole host."""
        for wanted in (subset or "", ""):
            found = _applicable(self._policies.get(wanted, {}), host, self._namespace, home)
            if found is not None:
                return found
        return NO_OUTBOUND


def _applicable(table: Mapping[str, list[tuple[str, T]]], host: str, caller: str, home: str) -> T | None:
    """The document for a host: the most specific name, and the caller's namespace before the service's own."""
    names = [host, *(name for name in sorted(table, key=len, reverse=True) if _covers(name, host))]
    for name in names:
        entries = table.get(name, ())
        for namespace in (caller, home, None):
            for space, spec in entries:
                if namespace is None or space == namespace:
                    return spec
    return None


def _chosen(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value


def _covers(pattern: str, host: str) -> bool:
    return pattern.startswith("*") and host.endswith(pattern[1:])


def _over(base: TrafficPolicy, own: TrafficPolicy | None) -> TrafficPolicy:
    """A subset's settings override the rule's, group by group."""
    if own is None:
        return base
    return TrafficPolicy(
        load_balancer=own.load_balancer or base.load_balancer,
        connection_pool=own.connection_pool or base.connection_pool,
        outlier_detection=own.outlier_detection or base.outlier_detection,
        retry_budget=own.retry_budget or base.retry_budget,
    )


def _balancer(policy: TrafficPolicy, outbound: OutboundPolicySpec) -> str:
    if outbound.load_balancer is not None:
        return outbound.load_balancer
    simple = policy.load_balancer.simple if policy.load_balancer is not None else None
    return simple if simple in PICKERS else "LEAST_REQUEST"


def _panic(policy: TrafficPolicy, outbound: OutboundPolicySpec) -> float:
    if outbound.panic_threshold is not None:
        return outbound.panic_threshold
    outlier = policy.outlier_detection
    if outlier is not None and outlier.min_health_percent is not None:
        return float(outlier.min_health_percent)
    return PANIC_THRESHOLD


def _limits(policy: TrafficPolicy) -> Limits:
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


def _budget(policy: TrafficPolicy, outbound: OutboundPolicySpec) -> BudgetPolicy:
    """The DestinationRule's `retryBudget`, else the OutboundPolicy's, else the default."""
    if policy.retry_budget is not None:
        own = policy.retry_budget
        return BudgetPolicy(own.percent, float(own.min_retry_concurrency))
    if outbound.retry_budget is not None:
        budget = outbound.retry_budget
        return BudgetPolicy(budget.percent, budget.min_retries_per_second, budget.window)
    return BudgetPolicy()


def _outlier(detection: OutlierDetection | None, outbound: OutboundPolicySpec) -> OutlierPolicy:
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


def _breaker(outbound: OutboundPolicySpec) -> BreakerPolicy | None:
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


def _hedge(outbound: OutboundPolicySpec) -> HedgePolicy | None:
    own = outbound.hedging
    if own is None:
        return None
    share = BudgetPolicy(percent=own.max_extra_percent, min_per_second=0.0)
    return HedgePolicy(own.delay, own.percentile, own.min_delay, share)
