"""AuthorizationPolicy: what Istio refuses is refused, and so is what could only be a slip that lets somebody in."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from meshlib.resources import AuthorizationPolicySpec, Problem, Source, load


def policy(spec: str, *, metadata: str = "name: it") -> str:
    return f"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{{metadata}}}\nspec: {spec}\n"


def problems(spec: str, *, metadata: str = "name: it") -> Sequence[Problem]:
    found = load([Source("mesh.yaml", policy(spec, metadata=metadata).encode())])
    assert bool(found.problems) != bool(found.resources)
    assert found.notes == ()
    return found.problems


def source(fields: str) -> str:
    return f"{{rules: [{{from: [{{source: {{{fields}}}}}]}}]}}"


def operation(fields: str) -> str:
    return f"{{rules: [{{to: [{{operation: {{{fields}}}}}]}}]}}"


def when(fields: str) -> str:
    return f"{{rules: [{{when: [{{{fields}}}]}}]}}"


@pytest.mark.parametrize(
    "spec",
    [
        "{}",
        "{rules: []}",
        "{rules: [{}]}",
        "{action: DENY, rules: [{}]}",
        "{action: AUDIT, rules: [{}]}",
        "{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: [/admin*]}}]}]}",
        "{action: CUSTOM, provider: {name: opa}, rules: [{from: [{source: {notIpBlocks: [10.0.0.0/8]}}]}]}",
        "{selector: {matchLabels: {app: httpbin, version: v1}}, rules: [{}]}",
        "{targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: front}, rules: [{}]}",
        "{targetRefs: [{kind: GatewayClass, name: front}], rules: [{}]}",
        # Istio's own example of everything (pkg/config/validation/testdata/crds/authz-valid.yaml).
        source("principals: [principal, 'principal-*', '*-principal', '*'], ipBlocks: [1.2.3.4, 5.6.0.0/16]"),
        source("requestPrincipals: ['https://a/*', '*'], namespaces: [ns, 'ns-*', '*-ns', '*']"),
        source(
            "notPrincipals: [a], notRequestPrincipals: ['*'], notNamespaces: [b], notRemoteIpBlocks: ['2001:db8::/32']"
        ),
        source("serviceAccounts: [baz/sa, sa]"),
        operation("methods: [GET, '*'], hosts: [exact.com, '*.suffix.com', 'prefix.*', 'a.com:8080'], ports: ['80']"),
        operation(
            "paths: [/exact, /prefix/*, '*/suffix', '*', '/path/template/{*}', '/{*}/path/{**}', '/{**}/template']"
        ),
        operation("notPaths: ['/a/{*}/c', '/%41'], notMethods: [PUT], notPorts: ['65535'], notHosts: [b]"),
        when("key: 'request.headers[X-header]', values: [a, 'a*', '*a', '*'], notValues: [b]"),
        when("key: 'request.auth.claims[nested1][nested2]', values: [a]"),
        when("key: source.ip, values: [10.10.10.10, 192.168.10.0/24, '::1']"),
        when("key: source.serviceAccount, notValues: [default/sleep]"),
        when("key: destination.port, values: ['91']"),
        when("key: connection.sni, values: ['*.suffix.com']"),
        when("key: request.auth.presenter, values: [a]"),
    ],
)
def test_a_sound_policy_is_taken_without_a_word(spec: str) -> None:
    assert problems(spec) == ()


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        # Actions and providers.
        ("{action: DENY}", "rules", "write a rule, {} for every request"),
        ("{action: AUDIT, rules: []}", "rules", "AUDIT never holds"),
        ("{action: CUSTOM, provider: {name: a}}", "rules", "CUSTOM never holds"),
        ("{action: CUSTOM, rules: [{}]}", "provider", "is required with action: CUSTOM"),
        ("{action: CUSTOM, provider: {name: ''}, rules: [{}]}", "provider", "is required"),
        ("{rules: [{}], provider: {name: a}}", "provider", "no meaning with action: ALLOW"),
        ("{action: REFUSE, rules: [{}]}", "action", "expected one of ALLOW"),
        # For whom.
        ("{selector: {matchLabels: {app: '*'}}}", "selector.matchLabels.app", "not a label's value"),
        ("{selector: {}, targetRef: {kind: Gateway, name: a}}", "", "keep one of them"),
        ("{targetRef: {kind: Service, name: a}}", "targetRef.kind", "write selector.matchLabels"),
        ("{targetRefs: [{kind: Gateway, name: a}, {kind: Pod, name: a}]}", "targetRefs[1].kind", "is not a gateway"),
        # What is empty would hold for everything.
        ("{rules: [{from: []}]}", "rules[0].from", "leave it out if that is meant"),
        ("{rules: [{to: null}]}", "rules[0].to", "would hold for everything"),
        ("{rules: [{}, {when: []}]}", "rules[1].when", "would hold for everything"),
        ("{rules: [{from: [{}]}]}", "rules[0].from[0].source", "is required and missing"),
        ("{rules: [{from: [{source: null}]}]}", "rules[0].from[0].source", "is required and missing"),
        (source(""), "rules[0].from[0].source", "would hold for everything"),
        (operation(""), "rules[0].to[0].operation", "would hold for everything"),
        (source("namespaces: [a], principals: []"), "rules[0].from[0].source.principals", "is empty; write values"),
        (operation("paths: null, methods: [GET]"), "rules[0].to[0].operation.paths", "is empty; write values"),
        (when("key: source.ip, values: [], notValues: [1.2.3.4]"), "rules[0].when[0].values", "is empty"),
        (when("key: source.namespace"), "rules[0].when[0]", "write values or notValues"),
        (source("principals: ['']"), "rules[0].from[0].source.principals[0]", "is empty"),
        (operation("notMethods: ['']"), "rules[0].to[0].operation.notMethods[0]", "is empty"),
        # Nothing that nobody knows is passed over.
        ("{rule: [{}]}", "rule", 'did you mean "rules"?'),
        ("{rules: [{frm: [{}]}]}", "rules[0].frm", "changes who may come in"),
        (source("principal: [a]"), "rules[0].from[0].source.principal", 'did you mean "principals"?'),
        (operation("methods: [GET], notPath: [/a]"), "rules[0].to[0].operation.notPath", 'did you mean "notPaths"?'),
        (when("key: source.ip, value: [1.2.3.4], notValues: ['::1']"), "rules[0].when[0].value", '"values"'),
        ("{selector: {matchLabel: {app: a}}}", "selector.matchLabel", 'did you mean "matchLabels"?'),
        # Sources.
        (source("ipBlocks: [1.2.3]"), "rules[0].from[0].source.ipBlocks[0]", "is not an address or a CIDR block"),
        (source("ipBlocks: [1.2.3.4/33]"), "rules[0].from[0].source.ipBlocks[0]", "CIDR"),
        (source("ipBlocks: [10.0.0.0/255.0.0.0]"), "rules[0].from[0].source.ipBlocks[0]", "CIDR"),
        (source("remoteIpBlocks: ['fe80::1%eth0']"), "rules[0].from[0].source.remoteIpBlocks[0]", "CIDR"),
        (source("notIpBlocks: ['*']"), "rules[0].from[0].source.notIpBlocks[0]", "CIDR"),
        (source("principals: ['spiffe://a/b']"), "rules[0].from[0].source.principals[0]", "without spiffe://"),
        (source("notPrincipals: ['spiffe://a/b']"), "rules[0].from[0].source.notPrincipals[0]", "without spiffe://"),
        (source('namespaces: ["a\\nb"]'), "rules[0].from[0].source.namespaces[0]", "control character"),
        (source("serviceAccounts: ['a*']"), "rules[0].from[0].source.serviceAccounts[0]", "without *"),
        (source("serviceAccounts: [a/b/c]"), "rules[0].from[0].source.serviceAccounts[0]", "namespace/name"),
        (source("notServiceAccounts: [a/]"), "rules[0].from[0].source.notServiceAccounts[0]", "namespace/name"),
        (source(f"serviceAccounts: [{'a, ' * 17}]"), "rules[0].from[0].source.serviceAccounts", "at most 16"),
        (source("serviceAccounts: [bar/sa], namespaces: [bar]"), "rules[0].from[0].source", "sources of their own"),
        (source("serviceAccounts: [bar/sa], notPrincipals: [a]"), "rules[0].from[0].source", "sources of their own"),
        # Operations.
        (operation("ports: [http]"), "rules[0].to[0].operation.ports[0]", "from 1 to 65535"),
        (operation("ports: ['65536']"), "rules[0].to[0].operation.ports[0]", "from 1 to 65535"),
        (operation("ports: [80]"), "rules[0].to[0].operation.ports[0]", "put it in quotes"),
        (operation("paths: [admin]"), "rules[0].to[0].operation.paths[0]", 'a path begins with "/"'),
        (operation("paths: ['/a?b=c']"), "rules[0].to[0].operation.paths[0]", "without the query"),
        (operation("paths: ['/a/{b}']"), "rules[0].to[0].operation.paths[0]", "outside of {*} and {**}"),
        (operation("paths: ['/a{*}']"), "rules[0].to[0].operation.paths[0]", "whole segments"),
        (operation("paths: ['/{**}/a/{*}']"), "rules[0].to[0].operation.paths[0]", "must be the last"),
        (operation("notPaths: ['/{**}/{**}']"), "rules[0].to[0].operation.notPaths[0]", "must be the last"),
        (operation("paths: ['/a/{*}/b*']"), "rules[0].to[0].operation.paths[0]", "no segment of a path may hold"),
        (operation("paths: ['/a//{*}']"), "rules[0].to[0].operation.paths[0]", "no segment of a path may hold"),
        (operation("paths: ['*/{*}']"), "rules[0].to[0].operation.paths[0]", "no segment of a path may hold"),
        (operation(f"paths: [/{'a' * 2048}]"), "rules[0].to[0].operation.paths[0]", "at most 2048"),
        (operation(f"methods: [{'A, ' * 1001}]"), "rules[0].to[0].operation.methods", "at most 1000"),
        ("{rules: [" + "{}, " * 513 + "]}", "rules", "at most 512"),
        # Conditions.
        (when("key: source.ipp, values: [a]"), "rules[0].when[0].key", 'did you mean "source.ip"?'),
        (when("key: request.headers, values: [a]"), "rules[0].when[0].key", "request.headers[x]"),
        (when("key: 'request.headers[]', values: [a]"), "rules[0].when[0].key", "request.headers[x]"),
        (when("key: 'request.headers[a][b]', values: [a]"), "rules[0].when[0].key", "names no header"),
        (when("key: 'request.headers[a b]', values: [a]"), "rules[0].when[0].key", "names no header"),
        (when("key: 'request.headersX[a]', values: [a]"), "rules[0].when[0].key", "is not an attribute"),
        (when("key: 'request.auth.claims[a]b', values: [a]"), "rules[0].when[0].key", "in brackets"),
        (when("key: 'source.ip[a]', values: [1.2.3.4]"), "rules[0].when[0].key", "is not an attribute"),
        (when("key: destination.namespace, values: [a]"), "rules[0].when[0].key", "metadata.namespace"),
        (when("key: 'destination.labels[app]', values: [a]"), "rules[0].when[0].key", "selector.matchLabels"),
        (when("key: destination.user, values: [a]"), "rules[0].when[0].key", "not Istio's any more"),
        (when("key: 'experimental.envoy.filters.a.b[c]', values: [a]"), "rules[0].when[0].key", "can't see"),
        (when("key: source.ip, values: [a]"), "rules[0].when[0].values[0]", "CIDR"),
        (when("key: destination.port, notValues: ['0']"), "rules[0].when[0].notValues[0]", "is not a port"),
        (when("key: source.principal, values: ['spiffe://a/b']"), "rules[0].when[0].values[0]", "without spiffe://"),
        (when("key: source.serviceAccount, values: ['a/*']"), "rules[0].when[0].values[0]", "without *"),
    ],
)  # fmt: skip
def test_what_cant_be_meant_is_a_problem_at_its_path(spec: str, path: str, words: str) -> None:
    found = {problem.path: problem.message for problem in problems(spec)}
    where = f"spec.{path}" if path else "spec"
    assert where in found
    assert words in found[where]


@pytest.mark.parametrize(
    "rule",
    [
        "{from: [{source: {principals: [a]}}]}",
        "{from: [{source: {notNamespaces: [a]}}]}",
        "{from: [{source: {requestPrincipals: ['*']}}]}",
        "{from: [{source: {serviceAccounts: [a]}}]}",
        "{when: [{key: source.principal, values: [a]}]}",
        "{when: [{key: source.namespace, values: [a]}]}",
        "{when: [{key: 'request.auth.claims[a]', values: [a]}]}",
    ],
)
def test_a_provider_is_asked_before_it_is_known_who_calls_as_in_istio(rule: str) -> None:
    [problem] = problems(f"{{action: CUSTOM, provider: {{name: opa}}, rules: [{rule}]}}")
    assert "can't choose what a provider is asked about" in problem.message


@pytest.mark.parametrize(
    ("value", "action", "words"),
    [
        ("'true'", "DENY", None),
        ("'false'", "CUSTOM, provider: {name: a}", None),
        ("'yes'", "ALLOW", 'expected "true" or "false"'),
        ("'True'", "ALLOW", 'expected "true" or "false"'),
        ("'true'", "AUDIT", "no meaning with action: AUDIT"),
    ],
)
def test_the_annotation_of_a_dry_run_says_true_or_false(value: str, action: str, words: str | None) -> None:
    metadata = f"name: it, annotations: {{istio.io/dry-run: {value}}}"
    found = problems(f"{{action: {action}, rules: [{{}}]}}", metadata=metadata)
    assert [problem.path for problem in found] == ['metadata.annotations["istio.io/dry-run"]'] * (words is not None)
    assert all(words in problem.message for problem in found if words)


def test_a_policy_without_a_spec_lets_nobody_in_as_in_istio() -> None:
    text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: it}\n"
    found = load([Source("mesh.yaml", text.encode())])
    assert found.problems == ()
    assert found.resources[0].spec == AuthorizationPolicySpec()
