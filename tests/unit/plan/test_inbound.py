"""What PeerAuthentication documents mean for one process."""

from __future__ import annotations

import pytest

from meshlib.plan.inbound import Inbound
from meshlib.resources import Intention, Intentions
from tests.unit.plan.compiled import compiled, doc


def peer(spec: str, *, name: str = "it", namespace: str = "default") -> str:
    return doc("PeerAuthentication", spec, name=name, namespace=namespace)


MESH = peer("mtls: {mode: STRICT}", name="mesh", namespace="istio-system")
HOME = peer("mtls: {mode: DISABLE}", name="home")
MINE = peer("selector: {matchLabels: {app: reviews}}\nmtls: {mode: STRICT}", name="mine")


def inbound(*documents: str, namespace: str = "default", **more: object) -> Inbound:
    return compiled(*documents, namespace=namespace, service="reviews", **more).inbound  # type: ignore[arg-type]


def test_without_a_document_both_are_taken() -> None:
    assert inbound() == Inbound("PERMISSIVE", {}, None)


@pytest.mark.parametrize(
    ("documents", "mode"),
    [
        ([MESH], "STRICT"),
        ([MESH, HOME], "DISABLE"),
        ([MESH, HOME, MINE], "STRICT"),
        ([MINE, HOME, MESH], "STRICT"),
        ([MESH, peer("mtls: {mode: UNSET}")], "STRICT"),
        ([MESH, peer("{}")], "STRICT"),
        ([peer("selector: {matchLabels: {app: reviews}}"), HOME], "DISABLE"),
        ([peer("mtls: {mode: STRICT}", namespace="other")], "PERMISSIVE"),
        ([peer("selector: {matchLabels: {app: ratings}}\nmtls: {mode: STRICT}")], "PERMISSIVE"),
        ([peer("selector: {matchLabels: {app: reviews, v: '1'}}\nmtls: {mode: STRICT}")], "PERMISSIVE"),
        ([peer("selector: {matchLabels: {app: reviews}}\nmtls: {mode: STRICT}", namespace="istio-system")],
         "PERMISSIVE"),
    ],
)  # fmt: skip
def test_the_narrowest_document_that_says_something_decides(documents: list[str], mode: str) -> None:
    assert inbound(*documents).mode == mode


def test_labels_of_the_process_are_what_a_selector_is_held_against() -> None:
    other = inbound(MINE, labels={"app": "something-else"})
    assert other.mode == "PERMISSIVE"
    assert inbound(peer("selector: {matchLabels: {v: '1'}}\nmtls: {mode: STRICT}"), labels={"v": "1"}).mode == "STRICT"


def test_the_root_namespace_is_a_namespace_too() -> None:
    assert inbound(MESH, namespace="istio-system").mode == "STRICT"


def test_of_two_equally_narrow_ones_the_first_by_name_counts() -> None:
    late = peer("mtls: {mode: STRICT}", name="z")
    assert inbound(late, HOME).mode == "DISABLE"


def test_ports_go_their_own_way_and_unset_ones_with_the_rest() -> None:
    spec = (
        "selector: {matchLabels: {app: reviews}}\nmtls: {mode: STRICT}\n"
        "portLevelMtls: {'8080': {mode: DISABLE}, '8081': {}}"
    )
    found = inbound(peer(spec))
    assert [found.mode_of(port) for port in (8080, 8081, 80, None)] == ["DISABLE", "STRICT", "STRICT", "STRICT"]


def test_intentions_are_handed_on() -> None:
    rules = Intentions((Intention("web", "allow"),))
    assert inbound(intentions=rules).intentions is rules


def test_a_policy_for_a_gateway_is_for_no_process() -> None:
    spec = "targetRefs: [{kind: Gateway, name: front}]\naction: DENY\nrules: [{}]"
    assert compiled(doc("AuthorizationPolicy", spec), service="reviews").inbound.authorization is None
    assert compiled(doc("AuthorizationPolicy", spec.partition("\n")[2])).inbound.authorization is not None
