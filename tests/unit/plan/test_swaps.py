from __future__ import annotations

from meshlib.state.store import LINGER, StateStore
from tests.unit.plan.compiled import addresses, compiled, doc, only, reviews

RULE = doc("DestinationRule", "host: reviews\nsubsets: [{name: v2, labels: {version: v2}}]\n")
TO_V2 = doc("VirtualService", "hosts: [reviews]\nhttp: [{route: [{destination: {host: reviews, subset: v2}}]}]\n")


def test_a_changed_weight_keeps_what_was_observed() -> None:
    store = StateStore()
    before = only(compiled(instances=[reviews(1), reviews(2)], store=store)).endpoints[0]
    ticket = before.begin(1.0)
    before.ejected_until = 31.0
    plan = compiled(instances=[reviews(1, weight=9), reviews(2)], store=store, now=5.0)
    after = only(plan).endpoints[0]
    assert after is before
    assert (after.active, after.ejected_until) == (1, 31.0)
    assert only(plan).picker.weights[after] == 9
    ticket.release()
    assert after.active == 0


def test_a_changed_policy_keeps_breaker_and_budget() -> None:
    store = StateStore()
    before = only(compiled(instances=[reviews(1)], store=store)).state
    policy = doc("OutboundPolicy", "host: reviews\ncircuitBreaker: {}\n")
    assert only(compiled(policy, instances=[reviews(1)], store=store)).state is before


def test_the_same_address_is_another_endpoint_in_another_cluster() -> None:
    store = StateStore()
    instances = [reviews(1, "v2")]
    whole = only(compiled(instances=instances, store=store)).endpoints[0]
    subset = only(compiled(RULE, TO_V2, instances=instances, store=store)).endpoints[0]
    assert whole is not subset


def test_a_registry_that_flaps_launders_no_ejected_endpoint() -> None:
    store = StateStore()
    before = only(compiled(instances=[reviews(1), reviews(2)], store=store)).endpoints[0]
    before.ejected_until = 300.0
    assert addresses(only(compiled(instances=[reviews(2)], store=store, now=10.0))) == ["10.0.0.2:80"]
    back = only(compiled(instances=[reviews(1), reviews(2)], store=store, now=10.0 + LINGER - 1.0)).endpoints[0]
    assert back is before
    assert back.ejected_until == 300.0


def test_what_has_been_gone_for_a_minute_and_is_idle_is_forgotten() -> None:
    store = StateStore()
    compiled(instances=[reviews(1), reviews(2)], store=store)
    for now in (10.0, 10.0 + LINGER):
        compiled(instances=[reviews(2)], store=store, now=now)
    assert len(store) == 1


def test_calls_in_flight_keep_the_plan_they_began_with() -> None:
    store = StateStore()
    old = compiled(instances=[reviews(1)], store=store)
    compiled(instances=[reviews(2)], store=store, now=1.0)
    assert addresses(only(old)) == ["10.0.0.1:80"]
    picked = only(old).picker.pick(1.0, ())
    assert picked is not None
    assert picked.address == "10.0.0.1:80"


def test_a_plan_that_is_compiled_twice_is_the_same_twice() -> None:
    store = StateStore()
    plans = [compiled(RULE, TO_V2, instances=[reviews(1, "v2")], store=store) for _ in range(2)]
    assert only(plans[0]).endpoints == only(plans[1]).endpoints
    assert len(store) == len(plans[0].clusters)
