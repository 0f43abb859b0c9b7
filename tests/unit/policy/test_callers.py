"""What an Authorization keeps of its callers: which rules are worth asking for them."""

from __future__ import annotations

from pathlib import Path

from meshlib.plan.authorization import authorization_of
from meshlib.policy.arriving import Arriving
from meshlib.policy.authorize import MOST_CALLERS, Authorization
from meshlib.resources import Source, load

POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/web]}}]
    to: [{operation: {paths: [/web]}}]
  - from: [{source: {namespaces: [ops]}}, {source: {notPrincipals: ["*"], ipBlocks: [192.0.2.7]}}]
    to: [{operation: {paths: [/ops]}}]
  - to: [{operation: {paths: [/all]}}]
"""


def authorization() -> Authorization:
    loaded = load([Source(Path(__file__).name, POLICY.encode())])
    assert not loaded.problems
    found = authorization_of(loaded.resources, ())
    assert found is not None
    return found


def arriving(path: str, principal: str = "", namespace: str = "") -> Arriving:
    return Arriving(
        "GET", path.encode(), [], seen=path, principal=principal, namespace=namespace, source_ip="192.0.2.7"
    )


def rule_for(judging: Authorization, *request: str) -> int:
    came = arriving(*request)
    assert not judging.fault_of(came)
    return judging.judge(came).rule


def test_each_caller_is_judged_by_its_own_rules_however_often_and_in_whatever_order_they_come() -> None:
    judging = authorization()
    web = "cluster.local/ns/default/sa/web", "default"
    ops = "cluster.local/ns/ops/sa/any", "ops"
    for _ in range(2):
        assert [rule_for(judging, path, *web) for path in ("/web", "/ops", "/all")] == [1, 0, 3]
        assert [rule_for(judging, path, *ops) for path in ("/web", "/ops", "/all")] == [0, 2, 3]
        assert [rule_for(judging, path) for path in ("/web", "/ops", "/all")] == [0, 2, 3]


def test_callers_beyond_the_bound_make_it_begin_anew() -> None:
    judging = authorization()
    for number in range(MOST_CALLERS + 10):
        assert rule_for(judging, "/all", f"cluster.local/ns/default/sa/{number}", "default") == 3
    assert len(judging._by_caller) == 10


def test_callers_share_what_rules_are_asked_by() -> None:
    """Or a thousand callers of two hundred rules would take a hundred megabytes."""
    judging = authorization()
    for name in "ab":
        rule_for(judging, "/all", f"cluster.local/ns/default/sa/{name}", "default")
    first, second = judging._by_caller.values()
    assert len(first) == len(second) == 1
    assert first[0] is second[0]
