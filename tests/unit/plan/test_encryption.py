"""Which endpoints are spoken to with TLS, and what they must prove."""

from __future__ import annotations

from meshlib.plan.peers import PeerTls
from meshlib.registries.base import Instance
from tests.unit.plan.compiled import HOST, compiled, doc, only, reviews

ID = "spiffe://mesh.example/ns/default/dc/dc1/svc/reviews"
ANNOUNCED = reviews(1, identity=ID)
PLAIN = reviews(2)
TO_V2 = doc("VirtualService", "hosts: [reviews]\nhttp: [{route: [{destination: {host: reviews, subset: v2}}]}]\n")


def rule(tls: str, more: str = "") -> str:
    return doc("DestinationRule", f"host: reviews\ntrafficPolicy: {{tls: {tls}}}\n{more}")


def test_a_process_with_an_identity_speaks_mtls_to_endpoints_that_announce_theirs() -> None:
    cluster = only(compiled(instances=[ANNOUNCED, PLAIN], identity=True))
    assert cluster.peers == {("10.0.0.1", 80): PeerTls("ISTIO_MUTUAL", HOST, (ID,))}


def test_a_process_without_an_identity_speaks_in_the_clear() -> None:
    assert only(compiled(instances=[ANNOUNCED], identity=False)).peers == {}


def test_disable_is_plain_whatever_an_endpoint_announces() -> None:
    assert only(compiled(rule("{mode: DISABLE}"), instances=[ANNOUNCED], identity=True)).peers == {}


def test_istio_mutual_that_was_asked_for_never_goes_out_in_the_clear() -> None:
    cluster = only(compiled(rule("{mode: ISTIO_MUTUAL}"), instances=[ANNOUNCED, PLAIN], identity=False))
    assert cluster.peers[("10.0.0.1", 80)].names == (ID,)
    assert cluster.peers[("10.0.0.2", 80)] == PeerTls("ISTIO_MUTUAL", HOST, ())  # and nobody can prove that


def test_names_and_sni_of_the_rule_go_before_what_is_announced() -> None:
    tls = "{mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://mesh.example/other'], sni: api.example.com}"
    cluster = only(compiled(rule(tls), instances=[ANNOUNCED], identity=True))
    assert cluster.peers[("10.0.0.1", 80)] == PeerTls(
        "ISTIO_MUTUAL", "api.example.com", ("spiffe://mesh.example/other",)
    )


def test_mutual_takes_its_files_from_the_rule() -> None:
    tls = "{mode: MUTUAL, clientCertificate: /c.pem, privateKey: /k.pem, caCertificates: /r.pem}"
    cluster = only(compiled(rule(tls), instances=[ANNOUNCED], identity=True))
    assert cluster.peers[("10.0.0.1", 80)] == PeerTls(
        "MUTUAL", HOST, roots="/r.pem", certificate="/c.pem", key="/k.pem"
    )


def test_simple_may_leave_the_peer_unverified() -> None:
    cluster = only(compiled(rule("{mode: SIMPLE, insecureSkipVerify: true}"), instances=[PLAIN]))
    assert cluster.peers[("10.0.0.2", 80)] == PeerTls("SIMPLE", HOST, verify=False)


def test_a_subsets_settings_go_before_its_hosts_and_else_the_hosts_hold() -> None:
    v2 = Instance("reviews", "10.0.0.1", 80, labels={"version": "v2"}, identity=ID)
    own = "subsets: [{name: v2, labels: {version: v2}, trafficPolicy: {tls: {mode: DISABLE}}}]\n"
    assert only(compiled(rule("{mode: SIMPLE}", own), TO_V2, instances=[v2], identity=True)).peers == {}
    own = "subsets: [{name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]\n"
    cluster = only(compiled(rule("{mode: SIMPLE}", own), TO_V2, instances=[v2], identity=True))
    assert cluster.peers[("10.0.0.1", 80)].mode == "SIMPLE"
