"""Plans of a registry that tells only of what it was asked."""

from __future__ import annotations

from meshlib.registries.base import Instance
from tests.unit.plan.compiled import HOST, addresses, compiled, doc, only, reviews

RATINGS = "ratings.default.svc.cluster.local"
TO_RATINGS = doc("VirtualService", "hosts: [reviews]\nhttp: [{route: [{destination: {host: ratings}}]}]\n")
FAR = "reviews.service.dc2.consul"


def test_a_service_that_was_not_asked_for_is_not_known() -> None:
    plan = compiled(TO_RATINGS, asked=[])
    assert plan.host("reviews", 80) is None
    assert (plan.asked, plan.wanted) == (frozenset(), frozenset())


def test_a_service_that_was_asked_for_is_known_though_nobody_serves_it() -> None:
    plan = compiled(TO_RATINGS, asked=[HOST, RATINGS])
    assert addresses(only(plan)) == []


def test_where_routes_of_known_hosts_lead_is_wanted() -> None:
    assert compiled(TO_RATINGS, asked=[HOST]).wanted == {RATINGS}
    assert compiled(TO_RATINGS, asked=[HOST, RATINGS]).wanted == frozenset()


def test_where_failover_leads_is_wanted() -> None:
    policy = doc("OutboundPolicy", f"host: reviews\nfailover: [{{host: {FAR}}}]\n")
    assert compiled(policy, instances=[reviews(1)], asked=[HOST]).wanted == {FAR}


def test_hosts_that_are_no_services_are_known_without_asking() -> None:
    route = doc("VirtualService", "hosts: [api.example.com]\nhttp: [{route: [{destination: {host: reviews}}]}]\n")
    plan = compiled(route, asked=[])
    assert plan.host("api.example.com", 80) is not None
    assert plan.wanted == {HOST}


def test_a_service_answers_to_its_name_in_consuls_dns() -> None:
    plan = compiled(instances=[reviews(1)], asked=[HOST])
    assert plan.host("reviews.service.consul", 80) is plan.host("reviews", 80)
    assert compiled(instances=[reviews(1)]).host("reviews.service.consul", 80) is None


def test_another_datacenters_service_has_a_host_of_its_own() -> None:
    far = Instance("reviews", "10.2.0.1", 80, datacenter="dc2")
    plan = compiled(instances=[reviews(1), far], asked=[HOST, FAR])
    assert addresses(only(plan, host=FAR)) == ["10.2.0.1:80"]
    assert addresses(only(plan)) == ["10.0.0.1:80"]


def test_who_is_asked_about_requests_is_wanted() -> None:
    who = "{name: %s, envoyExtAuthzHttp: {service: %s, port: 80}}"
    named = ", ".join(
        who % (name, service)
        for name, service in {"a": "ratings", "b": "shop/authz.shop.svc.cluster.local", "c": "127.0.0.1"}.items()
    )
    policies = [
        doc("AuthorizationPolicy", "action: CUSTOM\nprovider: {name: a}\nrules: [{}]\n"),
        doc("InboundPolicy", f"extensionProviders: [{named}]\n"),
    ]
    assert compiled(*policies, asked=[]).wanted == {RATINGS, "authz.shop.svc.cluster.local"}
    assert compiled(policies[1], asked=[]).wanted == frozenset(), "nobody is asked"


def test_of_a_registry_that_tells_of_everything_nothing_is_wanted() -> None:
    plan = compiled(TO_RATINGS)
    assert (plan.asked, plan.wanted) == (None, frozenset())
    assert plan.host("reviews", 80) is not None
