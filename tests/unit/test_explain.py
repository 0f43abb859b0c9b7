"""Why a call would go where it goes."""

from __future__ import annotations

import pytest

from meshlib.explain import Explanation, explain
from meshlib.plan.compile import compile_plan
from meshlib.plan.plan import Plan
from meshlib.plan.snapshot import Snapshot
from meshlib.policy.hashing import hash_of
from meshlib.registries.base import Instance
from meshlib.resources import Source, load
from meshlib.state.store import StateStore

DOCUMENTS = b"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: jason
    match: [{headers: {end-user: {exact: jason}}, method: {exact: GET}}]
    fault: {delay: {fixedDelay: 7s, percentage: {value: 100}}}
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {prefix: /old}}]
    redirect: {uri: /new}
  - name: rest
    timeout: 2s
    retries: {attempts: 3, perTryTimeout: 500ms, retryOn: "5xx"}
    route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
"""


@pytest.fixture
def plan() -> Plan:
    loaded = load([Source("mesh.yaml", DOCUMENTS)])
    assert not loaded.problems
    instances = (
        Instance(service="reviews", host="10.0.0.1", port=80, labels={"version": "v1"}),
        Instance(service="reviews", host="10.0.0.2", port=80, labels={"version": "v1"}, healthy=False),
        Instance(service="reviews", host="10.0.0.3", port=80, labels={"version": "v2"}),
    )
    return compile_plan(Snapshot(instances, loaded.resources, "v7"), "default", StateStore(), 0.0, lambda: 0.5)


def asked(plan: Plan, url: str = "http://reviews/42", method: str = "GET", **headers: str) -> Explanation:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return explain(plan, method, url, given, 0.0)


def test_every_candidate_rule_is_there_up_to_the_one_taken_with_what_failed(plan: Plan) -> None:
    found = asked(plan, end_user="anna")
    assert [(candidate.route, candidate.taken) for candidate in found.candidates] == [
        ("reviews[jason]", False),
        ("reviews[1]", False),
        ("reviews[rest]", True),
    ]
    assert found.candidates[0].failed == ("match 1: header end-user exact 'jason' didn't hold",)
    assert found.candidates[0].origin == "mesh.yaml, document 1, line 2"


def test_the_split_and_its_endpoints_are_there_with_why_some_are_excluded(plan: Plan) -> None:
    v1, v2 = asked(plan).clusters
    assert (v1.share, v2.share) == (90.0, 10.0)
    assert [(endpoint.address, endpoint.excluded) for endpoint in v1.endpoints] == [
        ("10.0.0.1:80", ""),
        ("10.0.0.2:80", "unhealthy by the registry's word"),
    ]


def test_an_ejected_endpoint_says_for_how_long(plan: Plan) -> None:
    plan.clusters["reviews.default.svc.cluster.local|v1"].endpoints[0].ejected_until = 12.0
    assert asked(plan).clusters[0].endpoints[0].excluded == "ejected for another 12.0 s"


def test_deadline_retries_and_faults_are_there(plan: Plan) -> None:
    assert "deadline 2 s, the whole response" in asked(plan).plan
    assert "up to 3 retries on 5xx, 0.5 s each" in asked(plan).plan
    assert "fault: 100% of calls wait 7 s" in asked(plan, end_user="jason").plan


def test_a_method_that_isnt_idempotent_says_what_that_means(plan: Plan) -> None:
    assert any("not idempotent" in line for line in asked(plan, method="POST").plan)
    assert not any("not idempotent" in line for line in asked(plan, method="POST", idempotency_key="7").plan)


def test_a_redirect_is_told(plan: Plan) -> None:
    assert asked(plan, "http://reviews/old/1").answer == "redirect 301 to /new"


def test_a_host_outside_the_mesh_is_told(plan: Plan) -> None:
    assert asked(plan, "https://example.com/").answer == "pass through"


def test_the_readable_form_has_it_all(plan: Plan) -> None:
    text = str(asked(plan))
    for part in ("✗ reviews[jason]", "✓ reviews[rest]", "90.0 %", "10.0.0.1:80", "LEAST_REQUEST", "configuration v7"):
        assert part in text


def test_a_url_that_isnt_absolute_is_refused(plan: Plan) -> None:
    with pytest.raises(ValueError, match="not an absolute URL"):
        asked(plan, "reviews/42")


def test_for_a_host_it_does_not_know_it_names_those_it_knows(plan: Plan) -> None:
    assert str(asked(plan, "http://review/")).splitlines()[1:] == [
        "the mesh doesn't know this host → pass through",
        "it knows reviews.default.svc.cluster.local",
    ]


def test_a_cluster_that_nobody_serves_is_said_to_raise(plan: Plan) -> None:
    documents = load([Source("mesh.yaml", DOCUMENTS)]).resources
    empty = compile_plan(Snapshot((), documents, "v8"), "default", StateStore(), 0.0, lambda: 0.5)
    assert "nobody serves it (no instance is registered): its calls raise NoEndpoints" in str(asked(empty))
    assert "NoEndpoints" not in str(asked(plan))


def hashing(key: str) -> Plan:
    rule = f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews}}
spec: {{host: reviews, trafficPolicy: {{loadBalancer: {{consistentHash: {{{key}, maglev: {{}}}}}}}}}}
"""
    loaded = load([Source("mesh.yaml", rule.encode())])
    assert not loaded.problems
    instances = [Instance(service="reviews", host=f"10.0.0.{number}", port=80) for number in range(1, 6)]
    snapshot = Snapshot(tuple(instances), loaded.resources, "v1")
    return compile_plan(snapshot, "default", StateStore(), 0.0, lambda: 0.5)


def test_what_is_hashed_is_there_and_the_endpoint_that_this_leads_to() -> None:
    plan = hashing("httpHeaderName: x-user")
    [cluster] = asked(plan, x_user="jason").clusters
    home = plan.clusters[cluster.name].picker.pick(0.0, (), hash_of(b"jason"))
    assert home is not None
    assert cluster.balancer == "MAGLEV"
    assert cluster.affinity == f"calls alike in the header x-user go to one endpoint; this one's is {home.address}"
    assert cluster.affinity in str(asked(plan, x_user="jason"))


@pytest.mark.parametrize(
    ("key", "becomes"),
    [
        ("httpHeaderName: x-user", "this one has none of it: any endpoint will do"),
        ("httpCookie: {name: sid}", "this one has none of it: any endpoint will do"),
        ("httpCookie: {name: sid, ttl: 0s}", "this one has none of it: a cookie is made for it"),
    ],
)
def test_a_request_without_what_is_hashed_is_told_so(key: str, becomes: str) -> None:
    [cluster] = asked(hashing(key)).clusters
    assert cluster.affinity.endswith(becomes)


def test_without_hashing_nothing_is_said_of_it(plan: Plan) -> None:
    assert [cluster.affinity for cluster in asked(plan).clusters] == ["", ""]


def test_how_an_endpoint_is_spoken_to_is_there_and_who_it_has_to_be() -> None:
    instances = (
        Instance(service="reviews", host="10.0.0.1", port=80, identity="spiffe://example.org/ns/default/sa/reviews"),
        Instance(service="reviews", host="10.0.0.2", port=80),
    )
    snapshot = Snapshot(instances, (), "v1")
    [cluster] = asked(compile_plan(snapshot, "default", StateStore(), 0.0, lambda: 0.5, identity=True)).clusters
    assert [endpoint.tls for endpoint in cluster.endpoints] == [
        "ISTIO_MUTUAL as spiffe://example.org/ns/default/sa/reviews",
        "",
    ]
    [alone] = asked(compile_plan(snapshot, "default", StateStore(), 0.0, lambda: 0.5)).clusters
    assert [endpoint.tls for endpoint in alone.endpoints] == ["", ""]
