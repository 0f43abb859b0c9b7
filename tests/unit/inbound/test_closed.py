"""From bad documents at a first start to the answer callers get; and what the example's good ones do."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib.agent.configuration import Configuration
from meshlib.plan.inbound import inbound_of
from meshlib.plan.plan import Plan
from meshlib.plan.snapshot import Snapshot
from meshlib.registries.base import make_update
from meshlib.resources import Source, load
from meshlib.resources.judging import judge_inbound
from tests.support.inbound import SERVICE, Kind, Request, Side, get

POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: secret-name}
spec: {action: DENY%s}
"""
BAD, GOOD = (POLICY % rules for rules in ("", ", rules: [{to: [{operation: {paths: [/admin*]}}]}]"))
EXAMPLE = (Path(__file__).parents[3] / "examples" / "inbound.yaml").read_text(encoding="utf-8")
WEB = "spiffe://mesh.test/ns/default/sa/web"


def test_every_request_is_answered_503_until_the_policy_is_mended(kind: Kind) -> None:
    side = Side(kind)

    def publish(snapshot: Snapshot) -> None:
        side.mesh.plan = Plan("1", {}, (), {}, inbound=inbound_of(snapshot, "default", SERVICE, {}, side.state))

    configuration = Configuration(publish)
    configuration.take(make_update([], [Source("bad.yaml", BAD.encode())]), 1.0)
    for request in (get("/"), get("/", peer=WEB), Request("OPTIONS", "*"), get("/admin")):
        reply = side.ask(request)
        assert (reply.status, reply.code, reply.seen) == (503, "NOCONFIG", None)
        assert b"secret-name" not in reply.body
    configuration.take(make_update([], [Source("good.yaml", GOOD.encode())]), 2.0)
    assert side.ask(get("/")).status == 200
    assert side.ask(get("/admin")).code == "RBAC"


def test_the_example_is_sound_and_draws_no_warning() -> None:
    loaded = load([Source("inbound.yaml", EXAMPLE.encode())], strict=True)
    assert (loaded.problems, len(loaded.resources)) == ((), 4)
    assert judge_inbound(loaded.resources) == []


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (get("/reviews/42", peer=WEB), 200, ""),
        (get("/health", peer=WEB), 200, ""),
        (get("/reviews/42"), 403, "RBAC"),
        (get("/reviews/42/secrets", peer=WEB), 403, "RBAC"),
        (Request("POST", "/reviews", peer=WEB), 403, "RBAC"),
        (get("/admin/users", peer=WEB), 403, "RBAC"),
        (get("/reviews/42", ("authorization", "Bearer not-a-token"), peer=WEB), 401, "JWT"),
        (get("/reviews/42", *((f"x-{number}", "") for number in range(100)), peer=WEB), 431, "SIZE"),
    ],
    ids=lambda value: f"{value.method} {value.target}" if isinstance(value, Request) else str(value),
)
def test_the_example_lets_in_whom_it_says(kind: Kind, request_: Request, status: int, code: str) -> None:
    reply = Side(kind, EXAMPLE).ask(request_)
    assert (reply.status, reply.code) == (status, code)
