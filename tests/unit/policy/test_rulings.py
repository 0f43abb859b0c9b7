"""What a ruling says, what is only noted, and what can't be judged."""

from __future__ import annotations

import pytest

from meshlib.plan.authorization import authorization_of
from meshlib.policy.authorize import Authorization, Ruling
from meshlib.resources import (
    DRY_RUN,
    AuthorizationAction,
    AuthorizationCondition,
    AuthorizationFrom,
    AuthorizationPolicySpec,
    AuthorizationRule,
    AuthorizationSource,
    AuthorizationTo,
    Operation,
    Resource,
)
from meshlib.resources.documents import Metadata, Origin
from tests.support.authorization import arriving, asked, verdict


def path(*paths: str) -> AuthorizationRule:
    return AuthorizationRule(to=(AuthorizationTo(Operation(paths=paths)),))


def policy(action: AuthorizationAction, *rules: AuthorizationRule, name: str = "it", dry: bool = False) -> Resource:
    metadata = Metadata(name, "default", annotations={DRY_RUN: "true"} if dry else {})
    spec = AuthorizationPolicySpec(rules=rules, action=action)
    return Resource("AuthorizationPolicy", metadata, spec, Origin("a test", 1, 0), {})


def compiled(*policies: Resource) -> Authorization:
    found = authorization_of(policies, ())
    assert found is not None
    return found


def ruling(line: str, *policies: Resource) -> Ruling:
    return compiled(*policies).judge(arriving(asked(line)))


def noted(line: str, *policies: Resource) -> list[tuple[str, str]]:
    return [(note.kind, note.says) for note in ruling(line, *policies).noted]


def test_without_a_policy_there_is_nothing_to_judge() -> None:
    assert authorization_of([], ()) is None


def test_a_ruling_names_the_policy_and_the_rule() -> None:
    found = ruling("GET /b", policy("DENY", path("/a"), path("/b"), name="no"))
    assert found == Ruling(False, "default/no", 2, "DENY default/no, rule 2, fits")
    found = ruling("GET /b", policy("ALLOW", path("/a"), path("/b"), name="yes"))
    assert found == Ruling(True, "default/yes", 2, "ALLOW default/yes, rule 2, fits")


def test_a_ruling_says_when_nothing_fits() -> None:
    several = [policy("ALLOW", path("/a"), name=f"p{number}") for number in range(5)]
    found = ruling("GET /b", *several)
    assert (found.allowed, found.policy, found.rule) == (False, "", 0)
    assert found.why == (
        "no rule of ALLOW default/p0, default/p1, default/p2 and 2 more fits, and nobody else may come in"
    )
    assert ruling("GET /b", policy("DENY", path("/a"))).why == "no DENY policy fits, and there is no ALLOW policy"


@pytest.mark.parametrize("action", ["DENY", "ALLOW", "AUDIT"])
def test_audit_is_noted_beside_any_other_action(action: AuthorizationAction) -> None:
    audit = policy("AUDIT", path("/a"), name="watch")
    assert ("audit", "AUDIT default/watch, rule 1, fits") in noted("GET /a", audit, policy(action, path("/a")))
    assert noted("GET /b", audit, policy(action, path("/a"))) == []


def test_a_denial_that_is_tried_is_noted_only() -> None:
    found = ruling("GET /a", policy("DENY", path("/a"), name="new", dry=True))
    assert found.allowed
    assert [(note.kind, note.by) for note in found.noted] == [("dry-run", "default/new")]
    assert noted("GET /b", policy("DENY", path("/a"), dry=True)) == []


def test_a_permission_that_is_tried_says_what_it_would_do() -> None:
    new = policy("ALLOW", path("/a"), name="new", dry=True)
    assert noted("GET /a", new) == [("dry-run", "dry run: ALLOW default/new, rule 1, fits")]
    (note,) = noted("GET /b", new)
    assert note == ("dry-run", "dry run: no rule of ALLOW default/new fits, so that it would be denied")


def test_a_permission_that_is_tried_denies_nobody_whom_one_in_force_lets_in() -> None:
    new, old = policy("ALLOW", path("/a"), name="new", dry=True), policy("ALLOW", path("/b"), name="old")
    assert noted("GET /b", new, old) == []
    assert "would be denied" in noted("GET /c", new, old)[0][1]


UNKNOWN = AuthorizationRule(when=(AuthorizationCondition("experimental.envoy.filters.a.b[c]", ("x",)),))
UNKNOWN_NOT = AuthorizationRule(when=(AuthorizationCondition("experimental.envoy.filters.a.b[c]", (), ("x",)),))
SAYS_NOTHING = AuthorizationRule(when=(AuthorizationCondition("source.ip"),))
NO_BLOCK = AuthorizationRule(from_=(AuthorizationFrom(AuthorizationSource(ip_blocks=("10.0.0.0/99",))),))
NOT_NO_BLOCK = AuthorizationRule(from_=(AuthorizationFrom(AuthorizationSource(not_ip_blocks=("rubbish",))),))
NO_PORT = AuthorizationRule(to=(AuthorizationTo(Operation(ports=("http",))),))
NO_TEMPLATE = path("/{**}/{**}")
NOT_NO_TEMPLATE = AuthorizationRule(to=(AuthorizationTo(Operation(not_paths=("/{**}/x/{*}",))),))
NO_NAME = AuthorizationRule(when=(AuthorizationCondition("request.headers", ("x",)),))
NO_ACCOUNT = AuthorizationRule(from_=(AuthorizationFrom(AuthorizationSource(service_accounts=("default/",))),))
UNJUDGEABLE = [
    UNKNOWN, UNKNOWN_NOT, SAYS_NOTHING, NO_BLOCK, NOT_NO_BLOCK, NO_PORT, NO_TEMPLATE, NOT_NO_TEMPLATE, NO_NAME,
]  # fmt: skip


@pytest.mark.parametrize("rule", UNJUDGEABLE)
def test_what_cannot_be_judged_never_allows_and_always_denies(rule: AuthorizationRule) -> None:
    """Such a document is refused when it is loaded; what got past that must not let anybody in."""
    head = arriving(asked("GET /x from=ns/default/sa/web ip=10.0.0.1"))
    assert verdict(compiled(policy("ALLOW", rule)), head) == "deny"
    assert verdict(compiled(policy("DENY", rule)), head) == "deny"


def test_a_service_account_without_a_name_is_nobody() -> None:
    head = arriving(asked("GET /x from=ns/default/x"))
    assert verdict(compiled(policy("ALLOW", NO_ACCOUNT)), head) == "deny"


def test_a_rule_that_cannot_be_judged_leaves_the_others() -> None:
    assert verdict(compiled(policy("ALLOW", UNKNOWN, path("/a"))), arriving(asked("GET /a"))) == "allow"


def test_a_path_without_a_reading_permits_nothing_and_denies_everything_also_unasked() -> None:
    """As who explains a ruling may come to it, without asking for the fault before."""
    head = arriving(asked("GET /a%2Fb"))
    assert not compiled(policy("ALLOW", path("*"))).judge(head).allowed
    assert not compiled(policy("DENY", path("/other"))).judge(head).allowed


@pytest.mark.parametrize("action", ["AUDIT", "DENY"])
def test_what_is_only_looked_on_at_refuses_no_path(action: AuthorizationAction) -> None:
    watching = policy(action, path("/a"), dry=action == "DENY")
    assert compiled(watching).fault_of(arriving(asked("GET /a%2Fb host:x host:y"))) == ""
    assert compiled(policy("DENY", path("/a"))).fault_of(arriving(asked("GET /a%2Fb"))) != ""


def test_rules_are_kept_for_who_explains_them() -> None:
    ((rule,),) = [one.rules for one in compiled(policy("DENY", path("/a", "/b"))).policies]
    ((condition,),) = rule.operations
    assert condition.says == "paths [/a, /b]"
    assert condition.holds(arriving(asked("GET /b")))
    assert not condition.holds(arriving(asked("GET /c")))
