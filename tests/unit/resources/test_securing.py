"""TLS settings, modes coming in and failover: what Istio refuses is refused, at the path, with words that help."""

from __future__ import annotations

import pytest

from meshlib.resources import Loaded, Source, check_references, load


def loaded(kind: str, spec: str, *, name: str = "it", namespace: str = "default") -> Loaded:
    return load([Source("mesh.yaml", text(kind, spec, name=name, namespace=namespace).encode())])


def text(kind: str, spec: str, *, name: str = "it", namespace: str = "default") -> str:
    versions = {"PeerAuthentication": "security.istio.io/v1", "OutboundPolicy": "meshlib/v1"}
    version = versions.get(kind, "networking.istio.io/v1")
    where = f"{{name: {name}, namespace: {namespace}}}"
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {where}\nspec: {spec}\n"


@pytest.mark.parametrize(
    "tls",
    [
        "{}",
        "{mode: DISABLE}",
        "{mode: SIMPLE, caCertificates: /ca.pem, sni: api.example.com, subjectAltNames: [api.example.com]}",
        "{mode: SIMPLE, insecureSkipVerify: true}",
        "{mode: MUTUAL, clientCertificate: /c.pem, privateKey: /k.pem}",
        "{mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://mesh.example/ns/default/sa/web']}",
    ],
)
def test_tls_settings_that_go_together_are_taken(tls: str) -> None:
    found = loaded("DestinationRule", f"{{host: a, trafficPolicy: {{tls: {tls}}}}}")
    assert (found.problems, found.notes) == ((), ())


@pytest.mark.parametrize(
    ("tls", "path", "words"),
    [
        ("{mode: MUTUAL, privateKey: /k.pem}", "clientCertificate", "is required with mode: MUTUAL"),
        ("{mode: MUTUAL, clientCertificate: /c.pem}", "privateKey", "is required with mode: MUTUAL"),
        ("{mode: SIMPLE, clientCertificate: /c.pem}", "clientCertificate", "write mode: MUTUAL"),
        ("{mode: SIMPLE, privateKey: /k.pem}", "privateKey", "write mode: MUTUAL"),
        ("{mode: ISTIO_MUTUAL, clientCertificate: /c.pem}", "clientCertificate", "the identity brings its own"),
        ("{mode: ISTIO_MUTUAL, caCertificates: /c.pem}", "caCertificates", "the identity brings its own"),
        ("{mode: DISABLE, caCertificates: /c.pem}", "caCertificates", "no meaning with mode: DISABLE"),
        ("{mode: SIMPLE, caCertificates: ca.pem}", "caCertificates", "not an absolute path"),
        ("{mode: ISTIO_MUTUAL, insecureSkipVerify: true}", "insecureSkipVerify", "write SIMPLE or MUTUAL"),
        ("{mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}", "subjectAltNames", "are not looked at"),
        ("{mode: SIMPLE, sni: '*.example.com'}", "sni", '"*"'),
        ("{mode: SIMPLE, subjectAltNames: ['*.example.com']}", "subjectAltNames[0]", "without *"),
        ("{mode: SIMPLE, subjectAltNames: ['']}", "subjectAltNames[0]", "is not a name"),
        ("{mode: STRICT}", "mode", "expected one of DISABLE, SIMPLE"),
    ],
)
def test_tls_settings_that_dont_are_problems(tls: str, path: str, words: str) -> None:
    [problem] = loaded("DestinationRule", f"{{host: a, trafficPolicy: {{tls: {tls}}}}}").problems
    assert problem.path == f"spec.trafficPolicy.tls.{path}"
    assert words in problem.message


def test_a_subsets_tls_is_judged_too() -> None:
    subsets = "[{name: v1, trafficPolicy: {tls: {mode: MUTUAL, privateKey: /k}}}]"
    [problem] = loaded("DestinationRule", f"{{host: a, subsets: {subsets}}}").problems
    assert problem.path == "spec.subsets[0].trafficPolicy.tls.clientCertificate"


def test_a_peer_authentication_is_taken() -> None:
    spec = "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {'8080': {mode: DISABLE}}}"
    found = loaded("PeerAuthentication", spec)
    assert (found.problems, found.notes) == ((), ())


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        ("{portLevelMtls: {'80': {mode: STRICT}}}", "spec.portLevelMtls", "needs a selector"),
        ("{selector: {}, portLevelMtls: {'80': {mode: STRICT}}}", "spec.portLevelMtls", "needs a selector"),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {'0': {}}}", 'spec.portLevelMtls["0"]', "is not a port"),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {'70000': {}}}",
            'spec.portLevelMtls["70000"]',
            "not a port",
        ),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {}}}", "spec.portLevelMtls.http", "is not a port"),
        ("{selector: {matchLabels: {a: '*!'}}}", "spec.selector.matchLabels.a", "not a label's value"),
        ("{mtls: {mode: MUTUAL}}", "spec.mtls.mode", "expected one of UNSET, DISABLE"),
    ],
)
def test_a_peer_authentication_that_cant_work_is_a_problem(spec: str, path: str, words: str) -> None:
    [problem] = loaded("PeerAuthentication", spec).problems
    assert problem.path == path
    assert words in problem.message


def test_two_for_the_whole_of_one_namespace_are_warned_of() -> None:
    both = "---\n".join(text("PeerAuthentication", "{mtls: {mode: STRICT}}", name=name) for name in ("b", "a"))
    abroad = text("PeerAuthentication", "{mtls: {mode: STRICT}}", name="c", namespace="other")
    chosen = text("PeerAuthentication", "{selector: {matchLabels: {a: b}}}", name="d")
    found = load([Source("mesh.yaml", f"{both}---\n{abroad}---\n{chosen}".encode())])
    [warning] = check_references(found.resources).warnings
    assert warning.name == "default/b"
    assert "a is for the whole of default too" in warning.message


@pytest.mark.parametrize(
    ("failover", "path", "words"),
    [
        ("[{host: a}]", "spec.failover[0]", "is the destination itself"),
        ("[{host: b}, {host: b}]", "spec.failover[1]", "stands here twice"),
        ("[{host: '*.b'}]", "spec.failover[0].host", '"*"'),
        ("[{host: b, subset: V1}]", "spec.failover[0].subset", "not a subset name"),
        ("[{subset: v1}]", "spec.failover[0].host", "is required"),
        ("[{host: b, subset: v1}]", "spec.failover[0].subset", "nobody defined"),
    ],
)
def test_failover_that_cant_work_is_a_problem(failover: str, path: str, words: str) -> None:
    problems = loaded("OutboundPolicy", f"{{host: a, failover: {failover}}}").problems
    assert path in [problem.path for problem in problems]
    assert any(words in problem.message for problem in problems)


def test_failover_is_bounded_and_stands_in_for_one_host() -> None:
    many = ", ".join(f"{{host: b{number}}}" for number in range(17))
    [problem] = loaded("OutboundPolicy", f"{{host: a, failover: [{many}]}}").problems
    assert "at most 16" in problem.message
    [problem] = loaded("OutboundPolicy", "{host: '*', failover: [{host: b}]}").problems
    assert "needs a single host" in problem.message


def test_a_failover_is_taken() -> None:
    assert loaded("OutboundPolicy", "{host: a, failover: [{host: reviews.service.dc2.consul}]}").problems == ()


@pytest.mark.parametrize("condition", ["{}", "{exact: a}", "{prefix: a}", "{regex: 'a+'}"])
def test_headers_that_must_not_be_there_are_conditions_like_others(condition: str) -> None:
    match = f"{{withoutHeaders: {{x-debug: {condition}}}}}"
    found = loaded(
        "VirtualService", f"{{hosts: [a], http: [{{match: [{match}], route: [{{destination: {{host: a}}}}]}}]}}"
    )
    assert (found.problems, found.notes) == ((), ())


def test_a_condition_on_a_header_that_must_not_be_there_is_judged() -> None:
    match = "{withoutHeaders: {x-debug: {regex: '(a+)+$'}}}"
    found = loaded(
        "VirtualService", f"{{hosts: [a], http: [{{match: [{match}], route: [{{destination: {{host: a}}}}]}}]}}"
    )
    [problem] = found.problems
    assert problem.path == 'spec.http[0].match[0].withoutHeaders["x-debug"].regex'
