"""What holds of both middlewares alike: who is judged, what the application sees, when a request has ended."""

from __future__ import annotations

import pytest

from meshlib.policy.arriving import Arriving
from meshlib.resources import Intention, Intentions
from tests.support.inbound import Kind, Side, get

WEB = "spiffe://mesh.test/ns/default/dc/dc1/svc/web"
OTHER = "spiffe://mesh.test/ns/default/dc/dc1/svc/other"

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec: {mtls: {mode: STRICT}}
"""


@pytest.mark.parametrize(("peer", "status"), [("", 403), (WEB, 200)])
def test_a_document_decides_who_comes_in(peer: str, status: int, kind: Kind) -> None:
    reply = Side(kind, STRICT).ask(get("/a%20b?c=d", peer=peer))
    assert reply.status == status
    assert reply.code == ("RBAC" if status == 403 else "")
    assert (reply.seen is not None) == (status == 200)
    if reply.seen is not None:
        assert reply.seen.path == "/a b"
        assert reply.seen.peer == WEB


def test_an_intention_decides_by_whom_the_certificate_names(kind: Kind) -> None:
    side = Side(kind, intentions=Intentions((Intention("web", "allow"), Intention("*", "deny"))))
    assert [side.ask(get(peer=peer)).status for peer in (WEB, OTHER, "")] == [200, 403, 403]


HOP = "10.1.1.1"


@pytest.mark.parametrize(
    ("came", "address", "remote"),
    [
        ("198.51.100.9", HOP, "198.51.100.9"),
        ("1.1.1.1, 198.51.100.9", HOP, "198.51.100.9"),
        ("198.51.100.9, 10.2.2.2", HOP, "198.51.100.9"),
        ("10.3.3.3, 10.2.2.2", HOP, "10.3.3.3"),
        ("198.51.100.9, unknown", HOP, HOP),
        ("", HOP, HOP),
        ("198.51.100.9", "192.0.2.7", "192.0.2.7"),
        ("::ffff:10.2.2.2, 2001:db8::1", HOP, "2001:db8::1"),
        (", ".join(["198.51.100.9", *["10.2.2.2"] * 40]), HOP, "10.2.2.2"),
    ],
)
def test_whom_a_request_is_made_for_is_what_trusted_hops_say(came: str, address: str, remote: str, kind: Kind) -> None:
    heads: list[Arriving] = []
    side = Side(kind, STRICT, trusted_hops=("10.0.0.0/8",))
    admission = side.gate.admission
    side.gate.admission = lambda plan, visitor, head, *more: (  # type: ignore[method-assign]
        heads.append(head),
        admission(plan, visitor, head, *more),
    )[1]
    side.ask(get("/", ("x-forwarded-for", came), address=address))
    (head,) = heads
    assert (head.source_ip, head.remote_ip) == (address, remote)
