from __future__ import annotations

import pytest

from meshlib.plan.cluster import HedgePolicy, Limits
from meshlib.state.breaker import BreakerPolicy
from meshlib.state.budget import BudgetPolicy
from meshlib.state.outlier import DEFAULT_OUTLIER
from tests.unit.plan.compiled import HOST, addresses, compiled, doc, only, reviews

BOTH = [reviews(1), reviews(2, "v2")]
TO_V2 = doc("VirtualService", "hosts: [reviews]\nhttp: [{route: [{destination: {host: reviews, subset: v2}}]}]\n")


def rule(policy: str, *, host: str = "reviews", subset_policy: str = "", **more: str) -> str:
    own = f", trafficPolicy: {subset_policy}" if subset_policy else ""
    spec = f"host: '{host}'\ntrafficPolicy: {policy}\nsubsets:\n- {{name: v2, labels: {{version: v2}}{own}}}\n"
    return doc("DestinationRule", spec, **more)


def outbound(fields: str, **more: str) -> str:
    return doc("OutboundPolicy", f"host: reviews\n{fields}\n", **more)


def test_a_subset_is_whoever_wears_its_labels() -> None:
    cluster = only(
        compiled(rule("{}"), TO_V2, instances=[*BOTH, reviews(3, "v2", labels={"version": "v2", "track": "x"})])
    )
    assert cluster.name == f"{HOST}|v2"
    assert (cluster.subset, cluster.labels, cluster.total) == ("v2", {"version": "v2"}, 3)
    assert addresses(cluster) == ["10.0.0.2:80", "10.0.0.3:80"]


def test_a_subset_nobody_fits_has_no_endpoints() -> None:
    assert addresses(only(compiled(rule("{}"), TO_V2, instances=[reviews(1)]))) == []


@pytest.mark.parametrize("rules", [[], [doc("DestinationRule", "host: reviews\n")]])
def test_a_subset_nobody_defined_has_no_endpoints(rules: list[str]) -> None:
    cluster = only(compiled(*rules, TO_V2, instances=BOTH, elsewhere=True))
    assert (addresses(cluster), cluster.total) == ([], 2)


def test_a_subset_s_policy_overrides_the_rule_s_group_by_group() -> None:
    text = rule(
        "{loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {http: {maxRetries: 4}}}",
        subset_policy="{loadBalancer: {simple: RANDOM}}",
    )
    cluster = only(compiled(text, TO_V2, instances=BOTH))
    assert cluster.picker.name == "RANDOM"
    assert cluster.limits.retries == 4
    assert only(compiled(text, instances=BOTH)).picker.name == "ROUND_ROBIN"


def test_without_documents_everything_has_its_default() -> None:
    cluster = only(compiled(instances=BOTH))
    assert cluster.picker.name == "LEAST_REQUEST"
    assert (cluster.limits, cluster.budget) == (Limits(), BudgetPolicy())
    assert (cluster.breaker, cluster.hedge, cluster.deadline) == (None, None, None)
    assert cluster.outlier == DEFAULT_OUTLIER


@pytest.mark.parametrize(
    ("simple", "picker"),
    [
        ("RANDOM", "RANDOM"),
        ("ROUND_ROBIN", "ROUND_ROBIN"),
        ("LEAST_CONN", "LEAST_REQUEST"),
        ("UNSPECIFIED", "LEAST_REQUEST"),
    ],
)
def test_the_balancer_is_the_rule_s(simple: str, picker: str) -> None:
    assert only(compiled(rule(f"{{loadBalancer: {{simple: {simple}}}}}"), instances=BOTH)).picker.name == picker


def test_the_outbound_policy_s_balancer_goes_before_the_rule_s() -> None:
    both = [rule("{loadBalancer: {simple: RANDOM}}"), outbound("loadBalancer: PEAK_EWMA")]
    assert only(compiled(*both, instances=BOTH)).picker.name == "PEAK_EWMA"


def test_the_most_specific_rule_is_taken_and_not_mixed_with_another() -> None:
    wild = rule("{connectionPool: {http: {maxRetries: 1}}}", host="*.default.svc.cluster.local", name="wild")
    wider = rule("{connectionPool: {http: {maxRetries: 2}}}", host="*.local", name="wider")
    own = rule("{loadBalancer: {simple: RANDOM}}", name="own")
    assert only(compiled(wider, wild, instances=BOTH)).limits.retries == 1
    cluster = only(compiled(wider, wild, own, instances=BOTH))
    assert (cluster.limits.retries, cluster.picker.name) == (None, "RANDOM")


@pytest.mark.parametrize(("namespace", "retries"), [("shop", 1), ("default", 2), ("other", 2)])
def test_the_caller_s_own_rule_goes_before_the_service_s(namespace: str, retries: int) -> None:
    texts = [
        rule("{connectionPool: {http: {maxRetries: 1}}}", host=HOST, namespace="shop"),
        rule("{connectionPool: {http: {maxRetries: 2}}}", host=HOST),
    ]
    assert only(compiled(*texts, instances=BOTH, namespace=namespace), host=HOST).limits.retries == retries


@pytest.mark.parametrize(
    ("pool", "limits"),
    [
        ("{tcp: {connectTimeout: 2s, idleTimeout: 30s}}", Limits(connect_timeout=2.0, idle_timeout=30.0)),
        ("{http: {idleTimeout: 5s}, tcp: {idleTimeout: 30s}}", Limits(idle_timeout=5.0)),
        ("{http: {http2MaxRequests: 7}}", Limits(requests=7)),
        ("{tcp: {maxConnections: 4}, http: {http1MaxPendingRequests: 6}}", Limits(requests=10)),
        ("{tcp: {maxConnections: 4}, http: {http1MaxPendingRequests: 6, http2MaxRequests: 8}}", Limits(requests=8)),
        ("{tcp: {maxConnections: 4}}", Limits()),  # what doesn't find a connection may wait
        ("{http: {maxRetries: 3, maxRequestsPerConnection: 9}}", Limits(retries=3, requests_per_connection=9)),
        ("{http: {maxRetries: 0}}", Limits()),
    ],
)
def test_the_connection_pool_is_read_as_limits(pool: str, limits: Limits) -> None:
    assert only(compiled(rule(f"{{connectionPool: {pool}}}"), instances=BOTH)).limits == limits


def test_outlier_detection_has_envoy_s_defaults_for_what_it_leaves_out() -> None:
    text = rule("{outlierDetection: {consecutiveGatewayErrors: 3, baseEjectionTime: 1m, maxEjectionPercent: 50}}")
    outlier = only(compiled(text, instances=BOTH)).outlier
    assert outlier is not None
    assert (outlier.server_errors, outlier.gateway_errors, outlier.interval) == (5, 3, 10.0)
    assert (outlier.base, outlier.max_percent, outlier.split) == (60.0, 50.0, False)


@pytest.mark.parametrize(
    ("texts", "percent"),
    [
        ([], 50.0),
        ([rule("{outlierDetection: {minHealthPercent: 30}}")], 30.0),
        ([rule("{outlierDetection: {minHealthPercent: 30}}"), outbound("panicThreshold: 0")], 0.0),
    ],
)
def test_the_panic_threshold_is_half_unless_somebody_says_otherwise(texts: list[str], percent: float) -> None:
    instances = [reviews(number, healthy=number <= 4) for number in range(1, 11)]
    assert only(compiled(*texts, instances=instances)).picker.panicking(0.0) is (percent > 40.0)


def test_the_outbound_policy_brings_what_istio_has_no_word_for() -> None:
    text = outbound(
        "circuitBreaker: {consecutiveFailures: 3, openFor: 2s}\n"
        "retryBudget: {percent: 10, minRetriesPerSecond: 1, window: 5s}\n"
        "hedging: {delay: 40ms, maxExtraPercent: 2}\n"
        "deadline: 3s"
    )
    cluster = only(compiled(text, instances=BOTH))
    assert cluster.breaker == BreakerPolicy(consecutive_failures=3, open_for=2.0)
    assert cluster.budget == BudgetPolicy(10.0, 1.0, 5.0)
    assert cluster.hedge == HedgePolicy(delay=0.04, budget=BudgetPolicy(2.0, 0.0))
    assert cluster.deadline == 3.0


def test_a_subset_s_outbound_policy_goes_before_its_host_s() -> None:
    texts = [
        rule("{}"),
        TO_V2,
        outbound("deadline: 3s", name="host"),
        doc("OutboundPolicy", "host: reviews\nsubset: v2\ndeadline: 1s\n", name="subset"),
    ]
    assert only(compiled(*texts, instances=BOTH)).deadline == 1.0
    assert only(compiled(rule("{}"), TO_V2, texts[2], instances=BOTH)).deadline == 3.0
