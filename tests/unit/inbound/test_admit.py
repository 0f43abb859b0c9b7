"""Who may come in, decided without a server."""

from __future__ import annotations

import json

import pytest

from meshlib.identity.spiffe import SpiffeId, parse
from meshlib.inbound.admit import Peer, admission, restricts, unready
from meshlib.inbound.clocks import Clocks
from meshlib.inbound.denials import Denial
from meshlib.inbound.drivers import drive
from meshlib.plan.inbound import Inbound
from meshlib.policy.arriving import Arriving
from meshlib.resources import Intention, Intentions, Permission

FRONT = parse("spiffe://mesh.test/ns/default/dc/dc1/svc/front")
BACK = parse("spiffe://mesh.test/ns/default/dc/dc1/svc/back")
CLOCKS = Clocks(lambda: 0.0, lambda: 0.0, lambda: 0.0)

PLAIN = Peer()
NOBODY = Peer(None, True)
CALLER = Peer(FRONT, True)

ONLY_FRONT = Intentions((Intention("front", "allow"), Intention("*", "deny")))


def admit(
    inbound: Inbound, peer: Peer, caller: SpiffeId | None, port: int | None = 8080, method: str = "GET"
) -> Denial | None:
    """Why a request for `/reviews/42` doesn't come in."""
    arriving = Arriving(method, b"/reviews/42", [], seen="/reviews/42", port=port)
    answer = drive(admission(inbound, peer, caller, arriving, CLOCKS), {})
    return answer if isinstance(answer, Denial) else None


@pytest.mark.parametrize(
    ("mode", "peer", "allowed"),
    [
        ("STRICT", CALLER, True),
        ("STRICT", NOBODY, False),
        ("STRICT", PLAIN, False),
        ("STRICT", Peer(known=False), False),
        ("PERMISSIVE", CALLER, True),
        ("PERMISSIVE", NOBODY, True),
        ("PERMISSIVE", PLAIN, True),
        ("DISABLE", PLAIN, True),
    ],
)
def test_the_mode_decides_of_a_connection(mode: str, peer: Peer, allowed: bool) -> None:
    inbound = Inbound(mode)  # type: ignore[arg-type]
    assert (admit(inbound, peer, peer.id) is None) == allowed


@pytest.mark.parametrize(("port", "allowed"), [(9000, True), (8080, False), (None, False)])
def test_a_port_has_a_mode_of_its_own(port: int | None, allowed: bool) -> None:
    inbound = Inbound("STRICT", {9000: "PERMISSIVE"})
    assert (admit(inbound, PLAIN, None, port) is None) == allowed


def test_strict_is_not_met_by_a_caller_that_a_hop_speaks_for() -> None:
    assert admit(Inbound("STRICT"), PLAIN, FRONT) is not None


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        (CALLER, True),
        (Peer(BACK, True), False),
        (NOBODY, False),
        (PLAIN, False),
        (Peer(parse("spiffe://mesh.test/ns/other/dc/dc1/svc/front"), True), False),
        (Peer(parse("spiffe://mesh.test/ns/default/sa/front"), True), False),
        (Peer(parse("spiffe://mesh.test/x/ns/default/dc/dc1/svc/front"), True), False),
    ],
)
def test_an_intention_is_for_the_service_its_source_names(peer: Peer, allowed: bool) -> None:
    assert (admit(Inbound(intentions=ONLY_FRONT), peer, peer.id) is None) == allowed


def test_an_intention_looks_at_whom_the_hop_speaks_for() -> None:
    hop = Peer(BACK, True)
    assert admit(Inbound(intentions=ONLY_FRONT), hop, FRONT) is None
    assert admit(Inbound(intentions=ONLY_FRONT), CALLER, BACK) is not None


@pytest.mark.parametrize("default", [True, False])
def test_without_a_rule_the_default_decides(default: bool) -> None:
    inbound = Inbound(intentions=Intentions((), default))
    assert (admit(inbound, CALLER, FRONT) is None) == default


def test_permissions_see_the_request() -> None:
    reads = Intentions((Intention("front", None, (Permission("allow", methods=("GET",), path_prefix="/reviews/"),)),))
    inbound = Inbound(intentions=reads)
    assert admit(inbound, CALLER, FRONT) is None
    assert admit(inbound, CALLER, FRONT, method="DELETE") is not None


def test_a_denial_is_a_whole_response_that_keeps_the_rules_to_itself() -> None:
    denial = admit(Inbound(intentions=ONLY_FRONT), Peer(BACK, True), BACK)
    assert denial is not None
    headers = dict(denial.headers)
    problem = json.loads(denial.body)
    assert (denial.status, problem["status"], problem["title"]) == (403, 403, "Forbidden")
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-meshlib-reason"] == b"RBAC"
    assert int(headers[b"content-length"]) == len(denial.body)
    assert str(BACK) in problem["detail"]
    assert "intention" not in problem["detail"]
    assert "intention" in denial.reason


def test_without_configuration_the_answer_is_to_try_again() -> None:
    denial = unready()
    assert denial.status == json.loads(denial.body)["status"] == 503
    assert dict(denial.headers)[b"x-meshlib-reason"] == b"NOCONFIG"


@pytest.mark.parametrize(
    ("inbound", "on"),
    [
        (Inbound(), False),
        (Inbound("DISABLE"), False),
        (Inbound("STRICT"), True),
        (Inbound("PERMISSIVE", {8080: "STRICT"}), True),
        (Inbound(intentions=Intentions((), True)), True),
    ],
)
def test_there_is_nothing_to_judge_unless_something_can_fail(inbound: Inbound, on: bool) -> None:
    assert restricts(inbound) is on


def test_while_policies_cant_be_read_nobody_comes_in_and_the_log_says_why() -> None:
    denial = admit(Inbound(closed="AuthorizationPolicy default/no-way: a broken rule"), CALLER, FRONT)
    assert denial is not None
    assert denial.status == 503
    assert "no-way" in denial.reason
    assert b"no-way" not in denial.body
    assert restricts(Inbound(closed="a broken rule"))
