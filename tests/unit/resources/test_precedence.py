"""Documents before what was made of the registry's own mesh configuration."""

from __future__ import annotations

from meshlib.resources import DestinationRuleSpec, OutboundPolicySpec, Resource, Settled, Source, load, settle

MADE = "labels: {meshlib.io/from: consul-discovery-chain}"
HOST = "reviews.default.svc.cluster.local"


def document(kind: str, spec: str, *, name: str = "mine", more: str = "namespace: default") -> str:
    version = "meshlib/v1" if kind == "OutboundPolicy" else "networking.istio.io/v1"
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, {more}}}\nspec: {spec}\n---\n"


def made(kind: str, spec: str) -> str:
    return document(kind, spec, name="made", more=MADE)


def settled(*texts: str) -> Settled:
    loaded = load([Source(f"{number}.yaml", text.encode()) for number, text in enumerate(texts)])
    assert not loaded.problems
    return settle(loaded.resources)


def names(found: Settled) -> list[str]:
    return [resource.metadata.name for resource in found.resources]


def the_made(found: Settled) -> Resource:
    [resource] = [one for one in found.resources if one.metadata.name == "made"]
    return resource


def routes(host: str, more: str = "") -> str:
    return f"{{hosts: [{host}], http: [{{route: [{{destination: {{host: ratings}}}}]}}]{more}}}"


def test_what_was_made_stands_where_nobody_wrote_anything() -> None:
    found = settled(made("VirtualService", routes(HOST)), document("VirtualService", routes("ratings")))
    assert (names(found), found.notes) == (["made", "mine"], ())


def test_a_virtual_service_goes_before_one_that_was_made_and_that_is_said() -> None:
    found = settled(made("VirtualService", routes(HOST)), document("VirtualService", routes("reviews")))
    assert names(found) == ["mine"]
    [note] = found.notes
    assert (note.kind, note.name, note.status) == ("VirtualService", "default/made", "ignored")
    assert "shadowed: the VirtualService default/mine at 1.yaml" in note.reason


def test_a_document_for_gateways_or_of_another_kind_shadows_nothing() -> None:
    gateway = document("VirtualService", routes("reviews", ", gateways: [edge]"))
    assert names(settled(made("VirtualService", routes(HOST)), gateway)) == ["made", "mine"]
    rule = document("DestinationRule", "{host: reviews}")
    assert names(settled(made("VirtualService", routes(HOST)), rule)) == ["made", "mine"]


def test_of_a_rule_that_was_made_the_subsets_stay_that_the_document_lacks() -> None:
    subsets = (
        "[{name: v1, labels: {a: b}}, {name: v2, labels: {c: d}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]"
    )
    mine = document(
        "DestinationRule",
        "{host: reviews, trafficPolicy: {tls: {mode: SIMPLE}}, subsets: [{name: v1, labels: {x: y}}]}",
    )
    found = settled(made("DestinationRule", f"{{host: {HOST}, subsets: {subsets}}}"), mine)
    spec = the_made(found).spec
    assert isinstance(spec, DestinationRuleSpec)
    assert {subset.name: (subset.labels, subset.traffic_policy) for subset in spec.subsets} == {
        "v1": ({"x": "y"}, None),
        "v2": ({"c": "d"}, None),
    }
    assert spec.traffic_policy is not None
    assert spec.traffic_policy.tls is not None
    assert "only the subsets it lacks" in found.notes[0].reason


def test_a_rule_that_was_made_and_brings_nothing_new_goes() -> None:
    mine = document("DestinationRule", "{host: reviews}")
    assert names(settled(made("DestinationRule", f"{{host: {HOST}, trafficPolicy: {{}}}}"), mine)) == ["mine"]


def test_the_policy_of_a_wildcard_rule_holds_for_subsets_that_were_made() -> None:
    wide = document("DestinationRule", "{host: '*.svc.cluster.local', trafficPolicy: {tls: {mode: DISABLE}}}")
    found = settled(made("DestinationRule", f"{{host: {HOST}, subsets: [{{name: v1}}]}}"), wide)
    spec = the_made(found).spec
    assert isinstance(spec, DestinationRuleSpec)
    assert spec.traffic_policy is not None
    assert spec.traffic_policy.tls is not None
    assert (spec.traffic_policy.tls.mode, found.notes) == ("DISABLE", ())


def test_an_outbound_policy_goes_before_one_for_the_same_endpoints() -> None:
    failover = made("OutboundPolicy", f"{{host: {HOST}, subset: v1, failover: [{{host: ratings}}]}}")
    rule = document("DestinationRule", "{host: reviews, subsets: [{name: v1}, {name: v2}]}", name="rule")
    for mine in ("{host: reviews}", "{host: reviews, subset: v1}"):
        found = settled(failover, rule, document("OutboundPolicy", mine))
        assert names(found) == ["rule", "mine"]
        assert len(found.notes) == 1
    found = settled(failover, rule, document("OutboundPolicy", "{host: reviews, subset: v2}"))
    assert names(found) == ["made", "rule", "mine"]


def test_the_policy_for_every_host_holds_beside_failover_that_was_made() -> None:
    failover = made("OutboundPolicy", f"{{host: {HOST}, failover: [{{host: ratings}}]}}")
    spec = the_made(settled(failover, document("OutboundPolicy", "{host: '*', deadline: 2s}"))).spec
    assert isinstance(spec, OutboundPolicySpec)
    assert (spec.host, spec.deadline, spec.failover[0].host) == (HOST, 2.0, "ratings")
