"""InboundPolicy: numbers that go together, names that tell apart, and nothing without an end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from meshlib.resources import Problem, Source, load


def problems(spec: str) -> Sequence[Problem]:
    text = f"apiVersion: meshlib/v1\nkind: InboundPolicy\nmetadata: {{name: it}}\nspec: {{{spec}}}\n"
    found = load([Source("mesh.yaml", text.encode())])
    assert found.notes == ()
    return found.problems


def limit(more: str = "") -> str:
    return f"rateLimits: [{{name: a, requests: 1{more}}}]"


def provider(more: str = "", *, name: str = "opa") -> str:
    return f"{{name: {name}, envoyExtAuthzHttp: {{service: authz, port: 8080{more}}}}}"


def providers(more: str = "") -> str:
    return f"extensionProviders: [{provider(more)}]"


FAULT = "{delay: {fixedDelay: 1s, percentage: {value: 1}}}"


@pytest.mark.parametrize(
    "spec",
    [
        "",
        limit(),
        limit(", per: 1m, burst: 5, match: [{uri: {prefix: /api}}], by: [{principal: true}, {claim: a.b}]"),
        limit(", by: [{header: x-team}, {remoteAddress: true}], scope: GLOBAL, onError: DENY, dryRun: true"),
        "concurrency: {maxRequests: 10}",
        "concurrency: {adaptive: {}, maxPending: 0, maxWait: 50ms}",
        "concurrency: {maxRequests: 10, adaptive: {minLimit: 2, initialLimit: 2, maxLimit: 2}}",
        "priority: {trust: IDENTIFIED, rules: [{match: [{uri: {exact: /health}}], priority: critical}]}",
        "overload: {eventLoopLag: 50ms}",
        "requestBounds: {maxHeaders: 100}",
        f"faults: [{{fault: {FAULT}}}]",
        "faults: [{fault: {abort: {httpStatus: 503, percentage: {value: 100}}}, match: [{method: {exact: GET}}]}]",
        providers(", pathPrefix: /check, includeRequestHeadersInCheck: [cookie, 'x-team-*', '*-id']"),
        providers(", includeAdditionalHeadersInCheck: {x-from: mesh}, includeRequestBodyInCheck: {maxRequestBytes: 9}"),
        "trustDomainAliases: [old.example, td_1]",
        "drainWait: 5s, selector: {matchLabels: {app: a}}",
    ],
)
def test_a_sound_policy_is_taken(spec: str) -> None:
    assert problems(spec) == ()


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        ("selector: {matchLabels: {'a b': c}}", 'selector.matchLabels["a b"]', "is not a label"),
        # Rate limits.
        ("rateLimits: [{name: a, requests: 0}]", "rateLimits[0].requests", "from 1"),
        ("rateLimits: [{name: a b, requests: 1}]", "rateLimits[0].name", "is not a name"),
        ("rateLimits: [{name: a, requests: 1}, {name: a, requests: 2}]", "rateLimits[1].name", "names must differ"),
        (limit(", burst: 0"), "rateLimits[0].burst", "from 1"),
        (limit(", by: [{}]"), "rateLimits[0].by[0]", "found none"),
        (limit(", by: [{principal: true, header: a}]"), "rateLimits[0].by[0]", "found 2"),
        (limit(", by: [{principal: true}, {principal: true}]"), "rateLimits[0].by[1]", "stands twice"),
        (limit(", by: [{claim: a..b}]"), "rateLimits[0].by[0].claim", "not the name of a claim"),
        (limit(", by: [{claim: ''}]"), "rateLimits[0].by[0].claim", "not the name of a claim"),
        (limit(", by: [{header: 'a b'}]"), "rateLimits[0].by[0].header", "is not a header name"),
        (limit(f", by: [{', '.join(f'{{header: x{i}}}' for i in range(9))}]"), "rateLimits[0].by", "at most 8"),
        (limit(", match: [{}]"), "rateLimits[0].match[0]", "no condition that is supported"),
        (limit(", match: [{uri: {regex: '(a+)+'}}]"), "rateLimits[0].match[0].uri.regex", "exponential"),
        (limit(", onError: DENY"), "rateLimits[0].onError", "no meaning with scope: LOCAL"),
        (f"rateLimits: [{', '.join(f'{{name: a{i}, requests: 1}}' for i in range(101))}]", "rateLimits", "at most 100"),
        # Load.
        ("concurrency: {}", "concurrency", "write maxRequests or adaptive"),
        ("concurrency: {maxRequests: 0}", "concurrency.maxRequests", "from 1"),
        ("concurrency: {adaptive: {minLimit: 30}}", "concurrency.adaptive", "found 30, 20 and 1000"),
        ("concurrency: {adaptive: {maxLimit: 10}}", "concurrency.adaptive", "minLimit ≤ initialLimit ≤ maxLimit"),
        ("concurrency: {maxRequests: 1, adaptive: {}}", "concurrency.maxRequests", "below adaptive.minLimit (2)"),
        ("priority: {rules: [{match: [], priority: critical}]}", "priority.rules[0].match", "which requests are meant"),
        ("priority: {rules: [{match: [{uri: {prefix: /}}], priority: vip}]}", "priority.rules[0].priority", "critical"),
        ("overload: {}", "overload", "write eventLoopLag or queueTime"),
        ("requestBounds: {}", "requestBounds", "bounds nothing"),
        ("requestBounds: {maxBodyBytes: 0}", "requestBounds.maxBodyBytes", "from 1"),
        # Faults.
        ("faults: [{fault: {}}]", "faults[0].fault", "injects nothing"),
        ("faults: [{fault: {delay: {fixedDelay: 1s}}}]", "faults[0].fault.delay", "percentage: {value: 100}"),
        ("faults: [{fault: {abort: {httpStatus: 503}}}]", "faults[0].fault.abort", "percentage: {value: 100}"),
        ("faults: [{fault: {abort: {percentage: {value: 1}}}}]", "faults[0].fault.abort.httpStatus", "is required"),
        ("faults: [{fault: {delay: {fixedDelay: 1s, percentage: {value: 101}}}}]",
         "faults[0].fault.delay.percentage.value", "from 0 to 100"),
        (f"faults: [{{fault: {FAULT}, match: [{{}}]}}]", "faults[0].match[0]", "no condition"),
        # Authorizers.
        (f"extensionProviders: [{provider()}, {provider()}]", "extensionProviders[1].name", "names must differ"),
        ("extensionProviders: [{name: a, envoyExtAuthzHttp: {service: '*.a', port: 1}}]",
         "extensionProviders[0].envoyExtAuthzHttp.service", '"*"'),
        (providers(", pathPrefix: check"), "extensionProviders[0].envoyExtAuthzHttp.pathPrefix", "is not a path"),
        (providers(", pathPrefix: '/a?b'"), "extensionProviders[0].envoyExtAuthzHttp.pathPrefix", "without a query"),
        (providers(", statusOnError: 200"), "extensionProviders[0].envoyExtAuthzHttp.statusOnError", "from 400 to 599"),
        (providers(", headersToUpstreamOnAllow: ['*']"),
         "extensionProviders[0].envoyExtAuthzHttp.headersToUpstreamOnAllow[0]", "is not the name of a header"),
        (providers(", headersToDownstreamOnDeny: ['a b']"),
         "extensionProviders[0].envoyExtAuthzHttp.headersToDownstreamOnDeny[0]", "is not the name of a header"),
        (providers(', includeAdditionalHeadersInCheck: {a: "b\\nc"}'),
         "extensionProviders[0].envoyExtAuthzHttp.includeAdditionalHeadersInCheck.a", "line break"),
        (providers(", includeRequestBodyInCheck: {maxRequestBytes: 16777217}"),
         "extensionProviders[0].envoyExtAuthzHttp.includeRequestBodyInCheck.maxRequestBytes", "held in memory"),
        (providers(", includeRequestBodyInCheck: {}"),
         "extensionProviders[0].envoyExtAuthzHttp.includeRequestBodyInCheck.maxRequestBytes", "is required"),
        (f"extensionProviders: [{', '.join(provider(name=f'a{i}') for i in range(21))}]", "extensionProviders",
         "at most 20"),
        ("extensionProviders: [{name: a}]", "extensionProviders[0].envoyExtAuthzHttp", "is required and missing"),
        ("trustDomainAliases: ['spiffe://old']", "trustDomainAliases[0]", "is not a trust domain"),
        (f"trustDomainAliases: [{'a, ' * 101}]", "trustDomainAliases", "at most 100"),
    ],
)  # fmt: skip
def test_what_cant_be_meant_is_a_problem_at_its_path(spec: str, path: str, words: str) -> None:
    [problem] = problems(spec)
    assert problem.path == f"spec.{path}"
    assert words in problem.message
