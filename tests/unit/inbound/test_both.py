"""What holds of both middlewares alike: who is judged, what the application sees, when a request has ended."""

from __future__ import annotations

import pytest

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
