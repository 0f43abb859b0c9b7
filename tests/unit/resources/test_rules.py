"""Each rule of the vocabulary: a document that breaks it gives one problem, at the path, with words that help."""

from __future__ import annotations

import pytest

from meshlib.resources import Loaded, Source, load

ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
"""
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: billing}
spec:
"""
POLICY = """
apiVersion: meshlib/v1
kind: OutboundPolicy
metadata: {name: reviews}
spec:
  host: reviews
"""


HASHES = [
    ("{}", "", "says nothing to hash; write exactly one of httpHeaderName, httpCookie"),
    ("{httpHeaderName: x, useSourceIp: true}", "", "has httpHeaderName and useSourceIp; write exactly one"),
    ("{httpHeaderName: ''}", "httpHeaderName", "is not a header name"),
    ("{httpHeaderName: 'a b'}", "httpHeaderName", "is not a header name"),
    ("{httpQueryParameterName: ''}", "httpQueryParameterName", "is not a name of 1 to 1024 characters"),
    ("{useSourceIp: false}", "useSourceIp", "is false, which names no key"),
    ("{httpCookie: {}}", "httpCookie.name", "is required"),
    ("{httpCookie: {name: 'a;b'}}", "httpCookie.name", "is not a cookie's name"),
    ("{httpCookie: {name: a, path: '/;b'}}", "httpCookie.path", "is not a path"),
    ('{httpCookie: {name: a, path: "/\\n"}}', "httpCookie.path", "has a line break"),
    ("{httpCookie: {name: a, ttl: soon}}", "httpCookie.ttl", "is not a duration"),
    ("{useSourceIp: true, maglev: {tableSize: 65536}}", "maglev.tableSize", "is not a prime number"),
    ("{useSourceIp: true, maglev: {tableSize: 5000077}}", "maglev.tableSize", "from 2 to 5000011"),
    ("{useSourceIp: true, ringHash: {minimumRingSize: 0}}", "ringHash.minimumRingSize", "from 1 to 1048576"),
    ("{useSourceIp: true, minimumRingSize: 8388608}", "minimumRingSize", "from 0 to 1048576"),
    ("{useSourceIp: true, ringHash: {}, maglev: {}}", "", "has ringHash and maglev; remove one"),
]


@pytest.mark.parametrize(("written", "path", "words"), HASHES)
def test_a_consistent_hash_that_says_too_little_or_too_much_is_refused(written: str, path: str, words: str) -> None:
    [problem] = loaded(RULE + f"  trafficPolicy: {{loadBalancer: {{consistentHash: {written}}}}}\n").problems
    assert problem.path == f"spec.trafficPolicy.loadBalancer.consistentHash.{path}".rstrip(".")
    assert words in problem.message


def test_simple_and_consistent_hash_exclude_each_other() -> None:
    both = "{simple: RANDOM, consistentHash: {useSourceIp: true}}"
    [problem] = loaded(RULE + f"  trafficPolicy: {{loadBalancer: {both}}}\n").problems
    assert (problem.path, problem.message) == (
        "spec.trafficPolicy.loadBalancer",
        "has simple and consistentHash; remove one of them",
    )


def loaded(text: str, *, strict: bool = False) -> Loaded:
    return load([Source("mesh.yaml", text.encode())], strict=strict)


def routed(rest: str) -> str:
    return ROUTE + "  - {" + rest + ", route: [{destination: {host: reviews}}]}\n"


def matched(condition: str) -> str:
    return routed(f"match: [{{{condition}}}]")


BROKEN_ROUTES = [
    ("route: [{destination: {host: a}, weight: 0}, {destination: {host: b}, weight: 0}]", "route", "add up to 0"),
    ("route: [{destination: {host: a}}, {destination: {host: b}}]", "route", "add up to 0"),
    ("route: [{destination: {host: a}, weight: 90}, {destination: {host: b}}]", "route[1].weight", "is missing"),
    ("route: [{destination: {host: a}, weight: -1}]", "route[0].weight", "found -1"),
    ("route: [{destination: {host: a}, weight: ninety}]", "route[0].weight", 'a whole number, found "ninety"'),
    ("route: [{destination: {host: '*.com'}}]", "route[0].destination.host", '"*"'),
    ("route: [{destination: {host: 'a b'}}]", "route[0].destination.host", "is not a host name"),
    ("route: [{destination: {subset: v1}}]", "route[0].destination.host", "is required"),
    ("route: [{destination: {host: a, port: {number: 0}}}]", "route[0].destination.port.number", "from 1 to 65535"),
    ("route: [{destination: {host: a}, headers: {request: {set: {'a b': x}}}}]",
     'route[0].headers.request.set["a b"]', "not a header name"),
    ("route: {destination: {host: a}}", "route", "expected a list"),
    ("name: nowhere", "", "none of route, redirect and directResponse"),
    ("delegate: {name: other}", "", "delegate is not supported yet"),
    ("redirect: {uri: /x}, directResponse: {status: 200}", "", "both redirect and directResponse"),
    ("redirect: {}", "redirect", "redirects nowhere"),
    ("redirect: {uri: /x, redirectCode: 200}", "redirect.redirectCode", "from 300 to 399"),
    ("redirect: {uri: /x}, rewrite: {uri: /y}", "rewrite", "beside redirect"),
    ("redirect: {authority: 'a b'}", "redirect.authority", "not a host"),
    ("redirect: {uri: \"/x\\r\\nevil: 1\"}", "redirect.uri", "percent-encoded"),
    ("redirect: {uri: /ü}", "redirect.uri", "percent-encoded"),
    ("directResponse: {status: 99}", "directResponse.status", "from 200 to 599"),
    ("directResponse: {status: 200, body: {}}", "directResponse.body", "one of string and bytes"),
    ("directResponse: {status: 200, body: {bytes: '?'}}", "directResponse.body.bytes", "base64"),
]  # fmt: skip


@pytest.mark.parametrize(("route", "path", "words"), BROKEN_ROUTES)
def test_a_broken_route_is_one_problem_at_its_path(route: str, path: str, words: str) -> None:
    check_one(loaded(ROUTE + "  - {" + route + "}\n"), "spec.http[0]" + (f".{path}" if path else ""), words)


BROKEN_OPTIONS = [
    ("match: [{}]", "match[0]", "match with no condition"),
    ("match: [{gateways: [mesh]}]", "match[0]", "match with no condition that is supported"),
    ("match: [{uri: {}}]", "match[0].uri", "one of exact, prefix and regex, found none"),
    ("match: [{uri: {exact: /a, prefix: /b}}]", "match[0].uri", "found exact and prefix"),
    ("match: [{uri: {prefix: ''}}]", "match[0].uri.prefix", "is empty"),
    ("match: [{uri: {exact: 42}}]", "match[0].uri.exact", "put it in quotes"),
    ("match: [{uri: {regex: '('}}]", "match[0].uri.regex", "is not a regular expression"),
    ("match: [{uri: {regex: '(a+)+'}}]", "match[0].uri.regex", "exponential"),
    ("match: [{headers: {'end user': {exact: a}}}]", 'match[0].headers["end user"]', "not a header name"),
    ("timeout: 5", "timeout", 'write "5s"'),
    ("timeout: '5'", "timeout", "has no unit"),
    ("timeout: -1s", "timeout", "is negative"),
    ("timeout: 100us", "timeout", "below 1ms"),
    ("timeout: 9000h", "timeout", "longer than a year"),
    ("timeout: soon", "timeout", "is not a duration"),
    ("retries: {attempts: -1}", "retries.attempts", "found -1"),
    ("retries: {attempts: 0, retryOn: 5xx}", "retries.attempts", "turns retries off"),
    ("retries: {retryOn: 'gatewayerror'}", "retries.retryOn", 'did you mean "gateway-error"'),
    ("retries: {retryOn: '5xx,,503'}", "retries.retryOn", '"" is not a condition'),
    ("fault: {}", "fault", "injects nothing"),
    ("fault: {abort: {httpStatus: 700, percentage: {value: 1}}}", "fault.abort.httpStatus", "from 200 to 599"),
    ("fault: {abort: {httpStatus: 500, percentage: {value: 101}}}", "fault.abort.percentage.value", "from 0 to 100"),
    ("fault: {delay: {percentage: {value: 1}}}", "fault.delay.fixedDelay", "is required"),
    ("rewrite: {}", "rewrite", "rewrites nothing"),
    ("rewrite: {uri: '/a b'}", "rewrite.uri", "percent-encoded"),
    ("rewrite: {uri: /ü}", "rewrite.uri", "percent-encoded"),
    ("rewrite: {authority: ü.example}", "rewrite.authority", "host or host:port"),
    ("headers: {request: {add: {a: \"x\\r\\ny: 1\"}}}", "headers.request.add.a", "line break"),
    ("headers: {response: {remove: ['a:']}}", "headers.response.remove[0]", "not a header name"),
    ("headers: {response: {set: {':authority': x}}}", 'headers.response.set[":authority"]', "not a header name"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "path", "words"), BROKEN_OPTIONS)
def test_a_broken_option_of_a_route_is_one_problem_at_its_path(option: str, path: str, words: str) -> None:
    check_one(loaded(routed(option)), f"spec.http[0].{path}", words)


BROKEN_DOCUMENTS = [
    (RULE + "  subsets: [{name: v1}, {name: v1}]", "spec.subsets[1].name", "defined twice"),
    (RULE + "  subsets: [{name: V_1}]", "spec.subsets[0].name", "not a subset name"),
    (RULE + "  subsets: [{name: v1, labels: {'a b': x}}]", 'spec.subsets[0].labels["a b"]', "not a label"),
    (RULE + "  subsets: [{name: v1, labels: {a: 'x y'}}]", "spec.subsets[0].labels.a", "not a label's value"),
    (RULE + "  subsets: [{name: v1, labels: {version: 1.0}}]", "spec.subsets[0].labels.version", "in quotes"),
    (RULE + "  trafficPolicy: {loadBalancer: {simple: ROUNDROBIN}}", "spec.trafficPolicy.loadBalancer.simple",
     'did you mean "ROUND_ROBIN"'),
    (RULE + "  trafficPolicy: {outlierDetection: {maxEjectionPercent: 150}}",
     "spec.trafficPolicy.outlierDetection.maxEjectionPercent", "from 0 to 100, found 150"),
    (RULE + "  trafficPolicy: []", "spec.trafficPolicy", "expected a mapping"),
    (ENTRY + "  {hosts: [], ports: [{number: 80, name: http}]}", "spec.hosts", "is empty"),
    (ENTRY + "  {hosts: [a.com], ports: []}", "spec.ports", "at least one port"),
    (ENTRY + "  {hosts: [a.com], ports: [{number: 70000, name: http}]}", "spec.ports[0].number", "from 1 to 65535"),
    (ENTRY + "  {hosts: [a.com], ports: [{number: 80, name: a}, {number: 81, name: a}]}", "spec.ports[1].name",
     "twice"),
    (ENTRY + "  {hosts: [a.com], ports: [{number: 80, name: a}, {number: 80, name: b}]}", "spec.ports[1].number",
     "twice"),
    (ENTRY + "  {hosts: [a.com], ports: [{number: 80, name: a}], resolution: STATIC}", "spec.endpoints",
     "at least one"),
    (ENTRY + "  {hosts: [a.com], ports: [{number: 80, name: a}], endpoints: [{address: 10.0.0.1}]}",
     "spec.endpoints", "no meaning"),
    (ENTRY + "  {hosts: ['*.a.com'], ports: [{number: 80, name: a}], resolution: DNS}", "spec.hosts", "looked up"),
    (ENTRY + "  {hosts: [a.com], ports: [{number: 80, name: a}], resolution: STATIC,"
     " endpoints: [{address: 10.0.0.1, ports: {http: 80}}]}", "spec.endpoints[0].ports.http", "called that"),
    (POLICY + "  circuitBreaker: {errorPercent: null}", "spec.circuitBreaker", "never opens"),
    (POLICY + "  circuitBreaker: {openFor: 1m}", "spec.circuitBreaker.maxOpenFor", "is below openFor"),
    (POLICY + "  loadBalancer: PEAKEWMA", "spec.loadBalancer", 'did you mean "PEAK_EWMA"'),
    (POLICY + "  panicThreshold: high", "spec.panicThreshold", "a number"),
    (POLICY + "  alwaysEjectOne: 1", "spec.alwaysEjectOne", "true or false"),
    (ROUTE.replace("hosts: [reviews]", "hosts: []") + "  - redirect: {uri: /}", "spec.hosts", "at least one host"),
    (ROUTE.replace("hosts: [reviews]", "hosts: ['a*']") + "  - redirect: {uri: /}", "spec.hosts[0]", '"*"'),
    (ROUTE, "spec.http", "has no route"),
    (ROUTE.replace("VirtualService", "VirtualServce"), "kind", 'did you mean "VirtualService"'),
    (RULE.replace("istio.io/v1", "istio.io/v2"), "apiVersion", "expected networking.istio.io/v1 or"),
    (RULE.replace("name: reviews", "name: Re views"), "metadata.name", "is not a name"),
    (RULE.replace("name: reviews", "namespace: a"), "metadata.name", "is required"),
    ("- 1", "", "expected a mapping"),
    ("apiVersion: meshlib/v1\nkind: OutboundPolicy\nmetadata: {name: a}\n", "spec.host", "is required"),
    ("apiVersion: meshlib/v1\nkind: OutboundPolicy\nmetadata: {name: a}\nspec:\n", "spec", "found nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "words"), BROKEN_DOCUMENTS)
def test_a_broken_document_is_one_problem_at_its_path(text: str, path: str, words: str) -> None:
    check_one(loaded(text), path, words)


def check_one(found: Loaded, path: str, words: str) -> None:
    assert found.resources == ()
    [problem] = found.problems
    assert problem.path == path
    assert words in problem.message
    assert problem.origin.source == "mesh.yaml"
    assert problem.origin.line > 0


@pytest.mark.parametrize(
    "text",
    [
        matched("headers: {end-user: {}}"),
        matched("uri: {regex: '/api/v[12]/(users|items)/[^/]+'}"),
        routed("timeout: 1h30m"),
        routed("retries: {attempts: 0}"),
        routed("retries: {attempts: 3, retryOn: 'gateway-error, 503'}"),
        routed("headers: {request: {set: {Host: other}}}"),
        ROUTE + "  - route: [{destination: {host: a}, weight: 1}, {destination: {host: b}, weight: 2}]",
        ROUTE + "  - route: [{destination: {host: a}, weight: 100}, {destination: {host: b}, weight: 0}]",
        ROUTE.replace("istio.io/v1", "istio.io/v1alpha3") + "  - redirect: {authority: 'other:8080'}",
        ROUTE + "  - directResponse: {status: 503, body: {bytes: aGk=}}",
        RULE.replace("host: reviews", "host: '*.example.com'"),
        POLICY + "  circuitBreaker: {consecutiveFailures: 5, errorPercent: null}\n  hedging: {delay: 20ms}",
        ENTRY + "  {hosts: [a.com], ports: [{number: 80, name: a}], resolution: STATIC, endpoints: [{address: '::1'}]}",
    ],
)
def test_what_istio_accepts_is_accepted(text: str) -> None:
    found = loaded(text)
    assert found.problems == ()
    assert found.notes == ()
    assert len(found.resources) == 1


def test_all_problems_of_all_documents_are_reported_at_once() -> None:
    text = routed("timeout: 5, retries: {retryOn: sometimes}") + "---\n" + RULE + "  subsets: [{name: A}, {name: B}]"
    assert [(problem.origin.document, problem.path) for problem in loaded(text).problems] == [
        (1, "spec.http[0].timeout"),
        (1, "spec.http[0].retries.retryOn"),
        (2, "spec.subsets[0].name"),
        (2, "spec.subsets[1].name"),
    ]


def test_a_problem_reads_as_one_line_with_file_document_line_and_path() -> None:
    text = "---\n" + RULE + "---\n" + ROUTE + "  - route:\n    - destination: {host: a}\n      weight: -5\n"
    [problem] = loaded(text).problems
    assert str(problem) == (
        "mesh.yaml, document 2 (VirtualService default/reviews), line 18, spec.http[0].route[0].weight:"
        " expected a weight from 0 to 2147483647, found -5"
    )


def test_a_long_value_is_cut_short_in_a_message() -> None:
    [problem] = loaded(routed(f"timeout: {'x' * 10_000}")).problems
    assert len(str(problem)) < 400


def test_the_number_of_problems_of_a_source_is_bounded() -> None:
    text = RULE + "  subsets: [" + "{name: A, labels: {a: b}}, " * 5000 + "]"
    problems = loaded(text).problems
    assert len(problems) == 1001
    assert "more than 1000 problems" in problems[-1].message
