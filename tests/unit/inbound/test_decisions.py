"""What both middlewares count and say in the log: denials by policy, AUDIT, dry runs."""

from __future__ import annotations

import logging

import pytest

from meshlib.resources import Intention, Intentions
from tests.support.inbound import Kind, Side, get

DOCUMENTS = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: watch}
spec:
  action: AUDIT
  rules: [{to: [{operation: {paths: ["/watched*"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: soon, annotations: {istio.io/dry-run: "true"}}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: ["/old", "/watched/old"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: never}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: ["/watched/never", "/never"]}}]}]
---
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {name: inbound}
spec:
  rateLimits: [{name: few, requests: 1, per: 1h, match: [{uri: {exact: /few}}]}]
"""


def counted(side: Side) -> dict[tuple[str, str, str], int]:
    return {(kind, code, by): count for kind, code, by, count in side.mesh.status().decisions}


def test_what_comes_in_and_what_does_not_is_counted_by_policy(kind: Kind) -> None:
    side = Side(kind, DOCUMENTS)
    for path in ("/", "/few", "/few", "/never", "/never", "/a%00b"):
        side.ask(get(path))
    assert counted(side) == {
        ("allowed", "", ""): 2,
        ("denied", "RL", "few"): 1,
        ("denied", "RBAC", "default/never"): 2,
        ("denied", "PATH", ""): 1,
    }


def test_audit_and_dry_runs_are_counted_logged_and_let_in(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    side = Side(kind, DOCUMENTS)
    with caplog.at_level(logging.WARNING, "meshlib.inbound"):
        assert side.ask(get("/watched/old")).status == 200
    assert counted(side) == {
        ("allowed", "", ""): 1,
        ("audit", "", "default/watch"): 1,
        ("dry-run", "", "default/soon"): 1,
    }
    assert "AUDIT default/watch, rule 1, fits" in caplog.text
    assert "dry run: DENY default/soon, rule 1, fits" in caplog.text


def test_audit_of_what_is_denied_is_counted_too(kind: Kind) -> None:
    side = Side(kind, DOCUMENTS)
    assert side.ask(get("/watched/never")).status == 403
    assert counted(side) == {("denied", "RBAC", "default/never"): 1, ("audit", "", "default/watch"): 1}


SLOW = """
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {name: slow}
spec: {faults: [{fault: {delay: {fixedDelay: 6ms, percentage: {value: 100}}}}]}
"""


@pytest.mark.parametrize(("left", "logged"), [("0", False), ("5", True)])
def test_work_whose_caller_has_stopped_waiting_is_counted_as_denied(
    left: str, logged: bool, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    side = Side(kind, SLOW)
    reply = side.ask(get("/", ("x-envoy-expected-rq-timeout-ms", left)))
    assert (reply.status, reply.code, reply.seen) == (504, "DT", None)
    assert counted(side) == {("denied", "DT", ""): 1}
    assert ("its caller has stopped waiting" in caplog.text) == logged


BOUNDED = """
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {name: bounds}
spec: {requestBounds: {maxHeaderBytes: 1000}}
"""


def test_nobody_keeps_the_log_from_saying_what_others_did(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    side = Side(kind, f"{DOCUMENTS}\n---\n{BOUNDED}")
    for more in range(300):  # more reasons than the log remembers
        assert side.ask(get("/", ("x-big", "x" * (1000 + more)))).code == "SIZE"
    side.ask(get("/never"))
    assert "DENY default/never, rule 1, fits" in caplog.text


def test_counts_survive_another_plan(kind: Kind) -> None:
    side = Side(kind, DOCUMENTS)
    side.ask(get("/never"))
    side.obey("")
    side.obey("", Intentions((Intention("*", "deny"),)))
    side.ask(get("/"))
    assert counted(side) == {("denied", "RBAC", "default/never"): 1, ("denied", "RBAC", ""): 1}


def test_the_status_prints_them(kind: Kind) -> None:
    side = Side(kind, DOCUMENTS)
    side.ask(get("/never"))
    side.ask(get("/"))
    lines = str(side.mesh.status()).splitlines()
    assert "allowed         1" in lines
    assert "denied          1 by RBAC default/never" in lines
