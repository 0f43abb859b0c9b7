"""What `meshlib check` warns of: policies that are sound, and hardly what was meant."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from meshlib.resources import Problem, Source, load
from meshlib.resources.judging import judge_inbound
from meshlib.resources.scopes import Workload

VERSIONS = {"InboundPolicy": "meshlib/v1", "OutboundPolicy": "meshlib/v1"}


def doc(kind: str, spec: str, *, name: str = "it", namespace: str = "default", dry: bool = False) -> str:
    version = VERSIONS.get(kind, "security.istio.io/v1")
    notes = ", annotations: {istio.io/dry-run: 'true'}" if dry else ""
    metadata = f"{{name: {name}, namespace: {namespace}{notes}}}"
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n"


def allow(
    *rules: str, action: str = "ALLOW", name: str = "it", app: str = "", namespace: str = "default", dry: bool = False
) -> str:
    chosen = f"selector: {{matchLabels: {{app: {app}}}}}, " if app else ""
    spec = f"{{{chosen}action: {action}, rules: [{', '.join(rules)}]}}"
    return doc("AuthorizationPolicy", spec, name=name, namespace=namespace, dry=dry)


def deny(*rules: str, name: str = "deny", app: str = "", namespace: str = "default", dry: bool = False) -> str:
    return allow(*rules, action="DENY", name=name, app=app, namespace=namespace, dry=dry)


def to(fields: str) -> str:
    return f"{{to: [{{operation: {{{fields}}}}}]}}"


def of(fields: str) -> str:
    return f"{{from: [{{source: {{{fields}}}}}]}}"


def when(*conditions: str) -> str:
    return f"{{when: [{', '.join(f'{{{one}}}' for one in conditions)}]}}"


def warnings(*documents: str, workloads: Sequence[Workload] = ()) -> list[Problem]:
    loaded = load([Source("mesh.yaml", "---\n".join(documents).encode())])
    assert not loaded.problems, [str(problem) for problem in loaded.problems]
    return judge_inbound(loaded.resources, workloads)


TOKENS = doc("RequestAuthentication", "{jwtRules: [{issuer: 'https://issuer.example'}]}", name="tokens")
WEB = of("principals: [cluster.local/ns/default/sa/web]")
PROVIDER = "extensionProviders: [{name: %s, envoyExtAuthzHttp: {service: x, port: 80}}]"
ADMIN = to("paths: [/admin*]")


@pytest.mark.parametrize(
    "documents",
    [
        [allow("{}")],
        [allow(WEB), deny(ADMIN)],
        [allow(name="nobody"), allow(WEB, name="some", app="reviews")],
        [allow(name="nobody"), allow("{}", name="all", namespace="istio-system")],
        [deny("{}", dry=True)],
        [deny("{}", dry=True), allow(WEB)],
        [allow(WEB, name="a", app="reviews"), allow(WEB, name="b", app="ratings")],
        [allow(to("methods: [GET]"), to("methods: [POST]"))],
        [deny(of("notRequestPrincipals: ['*']")), TOKENS],
        [allow(of("requestPrincipals: ['*']"), app="reviews"), TOKENS],
        [allow(when("key: 'request.auth.claims[team]', values: [a]")), TOKENS],
        [allow(WEB), doc("PeerAuthentication", "{mtls: {mode: PERMISSIVE}}")],
        [allow(WEB, app="web"), doc("PeerAuthentication", "{mtls: {mode: DISABLE}}", namespace="other")],
        [allow(to("paths: ['/a/{*}'], notPaths: [/a/b]"))],
        [doc("InboundPolicy", "{concurrency: {maxRequests: 1}}", name="a"),
         doc("InboundPolicy", "{overload: {queueTime: 1s}}", name="b"),
         doc("InboundPolicy", "{selector: {matchLabels: {app: a}}, concurrency: {maxRequests: 1}}", name="c"),
         doc("InboundPolicy", "{selector: {matchLabels: {app: b}}, concurrency: {maxRequests: 1}}", name="d")],
        [allow("{}", action="AUDIT", name="a"), allow("{}", action="AUDIT", name="b")],
        [doc("AuthorizationPolicy", "{targetRef: {kind: Gateway, name: a}, action: DENY, rules: [{}]}", name="front"),
         allow(WEB)],
        [allow("{}", action="CUSTOM, provider: {name: opa}"),
         doc("InboundPolicy", f"{{{PROVIDER % 'opa'}}}", namespace="istio-system")],
    ],
)  # fmt: skip
def test_what_makes_sense_draws_no_warning(documents: list[str]) -> None:
    assert [str(warning) for warning in warnings(*documents)] == []


NEVER = [
    (to("paths: [/a], notPaths: [/a*]"), "to: notPaths excludes all of paths"),
    (to("methods: [GET], notMethods: ['*']"), "to: notMethods excludes all of methods"),
    (to("hosts: [A.com], notHosts: ['*.COM', a.com]"), "to: notHosts excludes all of hosts"),
    (of("ipBlocks: [10.1.0.0/16, 10.2.3.4], notIpBlocks: [10.0.0.0/8]"), "from: notIpBlocks excludes all of ipBlocks"),
    (of("principals: [td/ns/a/sa/x], namespaces: [b]"), "from: none of principals is of one of namespaces"),
    (when("key: source.namespace, values: [a], notValues: ['*']"), "when: notValues of source.namespace exclude all"),
    (when("key: destination.port, values: ['80']", "key: destination.port, values: ['81', '82']"),
     "when: two conditions on destination.port have no value in common"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "words"), NEVER)
def test_a_rule_that_contradicts_itself_can_never_hold(rule: str, words: str) -> None:
    [warning] = warnings(deny(ADMIN, rule))
    assert (warning.path, warning.name) == ("spec.rules[1]", "default/deny")
    assert f"can never hold, {words}" in warning.message


@pytest.mark.parametrize(
    "rule",
    [
        to("paths: [/a*], notPaths: [/a]"),
        to("paths: ['/a/{*}'], notPaths: [/a/b]"),
        to("methods: [GET, PUT], notMethods: [PUT]"),
        of("ipBlocks: [10.0.0.0/8], notIpBlocks: [10.1.0.0/16]"),
        of("ipBlocks: ['::1'], notIpBlocks: [0.0.0.0/0]"),
        of("principals: ['td/*'], namespaces: [b]"),
        of("principals: [td/ns/b/sa/x, td/ns/a/sa/x], namespaces: ['b*']"),
        when("key: 'request.headers[a]', values: [x]", "key: 'request.headers[a]', values: [y]"),
        when("key: source.namespace, values: ['a*']", "key: source.namespace, values: [ab]"),
        "{from: [{source: {namespaces: [a], notNamespaces: [a]}}, {source: {namespaces: [b]}}]}",
    ],
)
def test_a_rule_that_may_hold_is_let_be(rule: str) -> None:
    assert warnings(deny(rule)) == []


COVERED = [
    (ADMIN, to("paths: [/admin/users]")),
    (to("paths: ['*']"), to("paths: ['/a/{*}']")),
    (to("paths: [/a*]"), to("paths: ['/a/{*}', /ab]")),
    (to("paths: ['*/x']"), to("paths: [/a/x, '*/b/x']")),
    (to("hosts: ['*.EXAMPLE.com']"), to("hosts: [a.example.com]")),
    (to("methods: [GET, PUT]"), to("methods: [PUT], paths: [/a]")),
    (to("notMethods: [GET]"), to("notMethods: [GET, PUT]")),
    (to("notPaths: [/admin*]"), to("paths: [/public]")),
    (of("ipBlocks: [10.0.0.0/8]"), of("ipBlocks: [10.1.2.3, 10.4.0.0/16]")),
    (of("notIpBlocks: [10.0.0.0/8]"), of("ipBlocks: [192.168.0.0/16]")),
    (of("principals: ['*']"), of("principals: [a], ipBlocks: [10.0.0.0/8]")),
    (when("key: 'request.headers[X-Team]', values: ['*']"), when("key: 'request.headers[x-team]', values: [a]")),
    ("{from: [{source: {namespaces: [a]}}, {source: {namespaces: [b]}}]}", of("namespaces: [b]")),
]


@pytest.mark.parametrize(("wide", "narrow"), COVERED)
def test_an_allow_rule_within_another_changes_nothing(wide: str, narrow: str) -> None:
    [warning] = warnings(allow(narrow, name="narrow", app="reviews"), allow(wide, name="wide"))
    assert (warning.name, warning.path) == ("default/narrow", "spec.rules[0]")
    assert "changes nothing: rules[0] of default/wide holds for all that this one holds for" in warning.message


@pytest.mark.parametrize(("wide", "narrow"), COVERED)
def test_the_wider_one_is_not_within_the_narrower(wide: str, narrow: str) -> None:
    found = warnings(allow(narrow, name="a"), allow(wide, name="b"))
    assert [warning.name for warning in found] == ["default/a"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ADMIN, to("paths: [/a*]")),
        (to("paths: ['/a/{*}']"), to("paths: [/a/b]")),
        (to("paths: ['*/x']"), to("paths: ['/a/x*']")),
        (to("paths: [/a*]"), to("paths: ['*/a']")),
        (to("methods: [GET]"), "{to: [{operation: {methods: [GET]}}, {operation: {methods: [PUT]}}]}"),
        (to("notMethods: [GET, PUT]"), to("notMethods: [GET]")),
        (to("notPaths: [/admin*]"), to("paths: [/a*]")),
        (of("ipBlocks: [10.0.0.0/8]"), of("ipBlocks: ['::ffff:0:0/96']")),
        (of("namespaces: [a]"), of("serviceAccounts: [a/x]")),
        (WEB, to("methods: [GET]")),
        (when("key: 'request.headers[a]', values: [x]"), when("key: 'request.headers[b]', values: [x]")),
        (when("key: 'request.auth.claims[Team]', values: [x]"), when("key: 'request.auth.claims[team]', values: [x]")),
    ],
)
def test_rules_beside_each_other_are_let_be(one: str, other: str) -> None:
    found = {warning.path for warning in warnings(allow(other, one))}
    assert "spec.rules[0]" not in found


def test_a_rule_that_stands_twice_is_told_once() -> None:
    [warning] = warnings(allow(WEB, name="a"), allow(ADMIN, WEB, name="b"))
    assert (warning.name, warning.path) == ("default/b", "spec.rules[1]")
    assert "says what rules[0] of default/a says" in warning.message


def test_an_allow_for_everything_makes_other_allows_pointless() -> None:
    [warning] = warnings(allow("{}", name="all", namespace="istio-system"), allow(WEB, name="some"))
    assert "rules[0] of istio-system/all holds for every request already" in warning.message


@pytest.mark.parametrize("dry", [True, False])
def test_a_deny_that_covers_an_allow_shadows_it_unless_it_is_only_tried(dry: bool) -> None:
    found = warnings(allow(to("paths: [/admin/users]"), WEB, app="reviews"), deny(ADMIN, dry=dry))
    assert [(warning.name, warning.path) for warning in found] == [("default/it", "spec.rules[0]")] * (not dry)
    assert all("rules[0] of default/deny (DENY) holds for all of it, and DENY goes first" in w.message for w in found)


def test_a_deny_for_fewer_processes_shadows_nothing() -> None:
    assert warnings(allow(ADMIN), deny(ADMIN, app="reviews")) == []


def test_a_deny_for_everything_locks_everybody_out() -> None:
    found = {warning.path: warning.message for warning in warnings(deny("{}", app="reviews"))}
    assert "turns away every request to processes of namespace default with app=reviews" in found["spec.rules[0]"]


@pytest.mark.parametrize("rules", [(), (NEVER[0][0],)])
def test_an_allow_that_lets_nobody_in_is_told_when_it_is_the_only_one(rules: tuple[str, ...]) -> None:
    messages = [one.message for one in warnings(allow(*rules), allow("{}", name="other", namespace="shop"))]
    assert any("lets nobody in" in message and "no other ALLOW" in message for message in messages)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        (WEB, "from[0].source.principals"),
        (of("namespaces: [a]"), "from[0].source.namespaces"),
        (of("serviceAccounts: [a]"), "from[0].source.serviceAccounts"),
        (when("key: source.principal, values: [a]"), "when[0]"),
    ],
)
def test_nobody_has_an_identity_where_peer_authentication_says_disable(rule: str, path: str) -> None:
    disabled = doc("PeerAuthentication", "{mtls: {mode: DISABLE}}", name="disabled")
    [warning] = warnings(allow(rule, app="reviews"), disabled)
    assert warning.path == f"spec.rules[0].{path}"
    assert "the PeerAuthentication default/disabled says DISABLE" in warning.message
    narrower = doc(
        "PeerAuthentication", "{selector: {matchLabels: {app: reviews}}, mtls: {mode: STRICT}}", name="strict"
    )
    assert warnings(allow(rule, app="reviews"), disabled, narrower) == []


@pytest.mark.parametrize(
    ("rule", "path", "words"),
    [
        (of("requestPrincipals: ['*']"), "from[0].source.requestPrincipals", "can never hold"),
        (of("notRequestPrincipals: ['*']"), "from[0].source.notRequestPrincipals", "holds for everybody"),
        (when("key: request.auth.audiences, values: [a]"), "when[0]", "can never hold"),
        (when("key: 'request.auth.claims[a]', notValues: [a]"), "when[0]", "holds for everybody"),
    ],
)
def test_nobody_has_a_token_where_none_is_accepted(rule: str, path: str, words: str) -> None:
    other = TOKENS.replace("namespace: default", "namespace: shop")
    [warning] = warnings(deny(rule), other)
    assert warning.path == f"spec.rules[0].{path}"
    assert words in warning.message
    assert "no RequestAuthentication accepts tokens for processes of namespace default" in warning.message


def test_a_provider_that_nobody_defines_for_these_processes_is_told() -> None:
    defined = f"{{selector: {{matchLabels: {{app: a}}}}, {PROVIDER}}}"
    custom = allow("{}", action="CUSTOM, provider: {name: opa}", app="a")
    assert warnings(custom, doc("InboundPolicy", defined % "opa")) == []
    for policy in (doc("InboundPolicy", defined % "oops"), doc("InboundPolicy", defined % "opa", namespace="shop")):
        [warning] = warnings(custom, policy)
        assert warning.path == "spec.provider.name"
        assert 'defines "opa" in extensionProviders: every request the rules hold for is denied' in warning.message


def test_inbound_policies_that_are_equally_narrow_and_say_the_same() -> None:
    first = doc("InboundPolicy", "{concurrency: {maxRequests: 1}, drainWait: 1s}", name="a")
    second = doc("InboundPolicy", "{concurrency: {maxRequests: 2}, overload: {queueTime: 1s}}", name="b")
    [warning] = warnings(second, first)
    assert (warning.name, warning.path) == ("default/b", "spec.concurrency")
    assert "default/a says it, too, and is as narrow" in warning.message


def test_selectors_of_different_labels_meet_where_an_instance_wears_both() -> None:
    first = doc("InboundPolicy", "{selector: {matchLabels: {app: a}}, drainWait: 1s}", name="a")
    second = doc("InboundPolicy", "{selector: {matchLabels: {track: canary}}, drainWait: 2s}", name="b")
    apart = [Workload("default", {"app": "a"}), Workload("default", {"app": "b", "track": "canary"})]
    both = Workload("default", {"app": "a", "track": "canary"})
    assert warnings(first, second) == []
    assert warnings(first, second, workloads=apart) == []
    assert [warning.path for warning in warnings(first, second, workloads=[*apart, both])] == ["spec.drainWait"]


@pytest.mark.parametrize(
    ("namespace", "workload", "warned"),
    [
        ("default", Workload("default", {"app": "reviews", "version": "v1"}), False),
        ("istio-system", Workload("shop", {"app": "reviews"}), False),
        ("default", Workload("default", {"app": "review"}), True),
        ("default", Workload("shop", {"app": "reviews"}), True),
    ],
)
def test_a_selector_that_no_registered_instance_fits(namespace: str, workload: Workload, warned: bool) -> None:
    policy = allow(WEB, app="reviews", namespace=namespace)
    found = warnings(policy, workloads=[workload])
    assert [warning.path for warning in found] == ["spec.selector.matchLabels"] * warned
    assert warnings(policy) == [], "when no instances are known"


def test_a_selector_without_labels_chooses_everybody() -> None:
    [warning] = warnings(doc("AuthorizationPolicy", f"{{selector: {{}}, action: DENY, rules: [{ADMIN}]}}"))
    assert "holds for all processes of namespace default" in warning.message


@pytest.mark.parametrize(
    ("rule", "path", "words"),
    [
        (to("methods: [get]"), "to[0].operation.methods[0]", 'as in "GET"'),
        (to("paths: [/a*/b]"), "to[0].operation.paths[0]", "stands for itself"),
        (to("hosts: ['*.a*']"), "to[0].operation.hosts[0]", "stands for itself"),
        (to("paths: [/a//b]"), "to[0].operation.paths[0]", "never matches"),
        (to("paths: [/a/../b]"), "to[0].operation.paths[0]", "never matches"),
        (to("notPaths: [/a/.]"), "to[0].operation.notPaths[0]", "never matches"),
        (when("key: 'request.headers[a]', values: [a*b]"), "when[0].values[0]", "stands for itself"),
    ],
)
def test_a_value_that_hardly_matches_what_was_meant(rule: str, path: str, words: str) -> None:
    [warning] = warnings(deny(rule))
    assert warning.path == f"spec.rules[0].{path}"
    assert words in warning.message


@pytest.mark.parametrize(
    "rule",
    [
        when("key: 'request.headers[cookie]', values: ['*session=*']"),
        when("key: source.namespace, values: [team-*-prod]"),
        of("namespaces: ['*-test-*']"),
    ],
)
def test_a_star_that_is_any_text_is_not_taken_for_itself(rule: str) -> None:
    assert warnings(deny(rule)) == []


def test_what_stars_exclude_is_not_taken_for_let_in() -> None:
    for star in ("a*b", "*x*"):
        assert warnings(deny(of("namespaces: [axb]"), of(f"notNamespaces: ['{star}']"))) == []
    [warning] = warnings(deny(of("namespaces: [axb]"), of("notNamespaces: ['b*']")))
    assert "changes nothing" in warning.message


@pytest.mark.parametrize(
    ("rule", "warned"),
    [
        ("issuer: a, jwksUri: 'http://keys.example/'", True),
        ("issuer: 'http://keys.example/'", True),
        ("issuer: 'https://keys.example/'", False),
        ("issuer: 'http://127.0.0.1:8000'", False),
        ("issuer: a, jwksUri: 'http://localhost/keys'", False),
    ],
)
def test_keys_that_come_in_plain_text_can_be_anybodys(rule: str, warned: bool) -> None:
    found = warnings(doc("RequestAuthentication", f"{{jwtRules: [{{{rule}}}]}}"))
    assert [warning.path for warning in found] == ["spec.jwtRules[0]"] * warned


def test_so_many_rules_are_compared_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshlib.resources.judging.COMPARED_AT_MOST", 10)
    rules = [to(f"paths: [/{number}]") for number in range(8)]
    [warning] = warnings(allow(*rules, name="a"), allow(*rules, name="b", namespace="b"))
    assert "16 rules, of which 10 are compared" in warning.message
