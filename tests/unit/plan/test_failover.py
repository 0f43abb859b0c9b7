"""Failover: where calls go while a destination has nobody available."""

from __future__ import annotations

from meshlib.explain import explain
from meshlib.plan.cluster import Cluster
from meshlib.registries.base import Instance
from meshlib.state.store import StateStore
from tests.unit.plan.compiled import HOST, compiled, doc, only, reviews

ELSEWHERE = "reviews.service.dc2.consul"
POLICY = doc("OutboundPolicy", f"host: reviews\nfailover: [{{host: {ELSEWHERE}}}, {{host: ratings}}]\n")
FAR = Instance("reviews", "10.2.0.1", 80, datacenter="dc2", identity="spiffe://far/reviews")
RATINGS = Instance("ratings", "10.3.0.1", 80)


def cluster(*instances: Instance, policy: str = POLICY, **more: object) -> Cluster:
    return only(compiled(policy, instances=instances, **more))  # type: ignore[arg-type]


def picked(found: Cluster, now: float = 0.0) -> set[str]:
    states = (found.picker.pick(now, ()) for _ in range(20))
    return {state.host for state in states if state is not None}


def test_calls_stay_while_one_endpoint_is_healthy() -> None:
    found = cluster(reviews(1, healthy=False), reviews(2, healthy=False), reviews(3), FAR, RATINGS)
    assert picked(found) == {"10.0.0.3"}  # a third is enough: there is no panic while others could take over


def test_a_panic_threshold_that_is_written_holds_in_each_tier() -> None:
    policy = POLICY + "  panicThreshold: 50\n"
    found = cluster(reviews(1, healthy=False), reviews(2), reviews(3, healthy=False), FAR, policy=policy)
    assert found.picker.panicking(0.0)


def test_calls_go_to_the_next_destination_while_none_is_healthy() -> None:
    assert picked(cluster(reviews(1, healthy=False), FAR, RATINGS)) == {"10.2.0.1"}


def test_calls_go_to_the_next_destination_while_nobody_is_there() -> None:
    assert picked(cluster(FAR, RATINGS)) == {"10.2.0.1"}


def test_destinations_without_anybody_available_are_passed_over() -> None:
    assert picked(cluster(reviews(1, healthy=False), RATINGS)) == {"10.3.0.1"}


def test_an_ejected_endpoint_is_not_available_and_calls_come_back_with_it() -> None:
    found = cluster(reviews(1), FAR)
    found.picker.states[0].ejected_until = 30.0
    assert picked(found, now=29.0) == {"10.2.0.1"}
    assert picked(found, now=30.0) == {"10.0.0.1"}


def test_with_nobody_available_anywhere_the_own_endpoints_are_called_as_ever() -> None:
    assert picked(cluster(reviews(1, healthy=False))) == {"10.0.0.1"}
    assert cluster().picker.pick(0.0, ()) is None


def test_states_belong_to_the_cluster_and_outlive_a_plan() -> None:
    store = StateStore()
    first = cluster(reviews(1), FAR, store=store)
    assert [state.host for state in first.endpoints] == ["10.0.0.1", "10.2.0.1"]
    again = cluster(reviews(1), FAR, store=store)
    assert again.endpoints == first.endpoints
    assert len(store) == 3  # the other datacenter's own cluster has a state of its own for it


def test_an_endpoint_that_takes_over_is_secured_as_what_it_is() -> None:
    peer = cluster(reviews(1), FAR, identity=True).peers[("10.2.0.1", 80)]
    assert (peer.sni, peer.names) == (ELSEWHERE, ("spiffe://far/reviews",))


def test_a_subset_may_stand_in_for_another() -> None:
    rule = doc(
        "DestinationRule",
        "host: reviews\nsubsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]\n",
    )
    to_v2 = doc("VirtualService", "hosts: [reviews]\nhttp: [{route: [{destination: {host: reviews, subset: v2}}]}]\n")
    policy = doc("OutboundPolicy", "host: reviews\nsubset: v2\nfailover: [{host: reviews, subset: v1}]\n")
    v2 = reviews(2, "v2", healthy=False)
    assert picked(only(compiled(rule, to_v2, policy, instances=[reviews(1), v2]))) == {"10.0.0.1"}


def test_without_failover_the_picker_is_the_plain_one() -> None:
    assert not hasattr(only(compiled(instances=[reviews(1)])).picker, "tiers")


def test_explain_says_where_calls_go_and_who_stands_by() -> None:
    near, away = reviews(1), reviews(1, healthy=False)
    said = str(explain(compiled(POLICY, instances=[near, FAR]), "GET", "http://reviews/", {}, 0.0))
    assert "10.2.0.1:80" in said
    assert f"excluded: of {ELSEWHERE}, which isn't in use" in said
    assert "2 of 2 endpoints" in said
    said = str(explain(compiled(POLICY, instances=[away, FAR]), "GET", "http://reviews/", {}, 0.0))
    assert f"none of its own endpoints is available: calls go to {ELSEWHERE}" in said
    assert HOST in said
