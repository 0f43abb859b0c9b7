from __future__ import annotations

import pytest

from meshlib.plan.plan import DEFAULT_DEADLINE
from meshlib.plan.route import Fault
from meshlib.policy.retry import DEFAULT_RETRY
from tests.unit.plan.compiled import HOST, addresses, compiled, doc, head, only, reviews, routed

BOTH = [reviews(1), reviews(2, "v2")]

SUBSETS = doc(
    "DestinationRule",
    """
    host: reviews
    subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}}
    """,
)
TO_REVIEWS = "route: [{destination: {host: reviews}}]"


def rules(http: str) -> str:
    return doc("VirtualService", f"hosts: [reviews]\nhttp:\n{http}")


def rule(**fields: str) -> str:
    """A VirtualService of one rule."""
    fields = {"route": "[{destination: {host: reviews}}]", **fields}
    return rules("- " + "\n  ".join(f"{name}: {value}" for name, value in fields.items()) + "\n")


def test_without_a_virtual_service_there_is_one_route_to_everybody() -> None:
    route = routed(compiled(instances=BOTH))
    assert (route.name, route.matches, route.retry) == ("default", (), DEFAULT_RETRY)
    assert (route.timeout, route.explicit) == (DEFAULT_DEADLINE, False)
    assert addresses(route.split.clusters[0]) == ["10.0.0.1:80", "10.0.0.2:80"]


def test_the_first_rule_that_matches_is_taken() -> None:
    plan = compiled(
        SUBSETS,
        rules("""
- name: testers
  match:
  - headers: {end-user: {exact: jason}}
  - uri: {prefix: /v2/}
  route: [{destination: {host: reviews, subset: v2}}]
- route: [{destination: {host: reviews, subset: v1}}]
"""),
        instances=BOTH,
    )
    assert routed(plan, "/v2/a").name == "it[testers]"
    assert routed(plan, headers={"end-user": "jason"}).name == "it[testers]"
    assert routed(plan, headers={"end-user": "jane"}).name == "it[1]"
    assert addresses(only(plan, "/v2/a")) == ["10.0.0.2:80"]
    assert addresses(only(plan, "/")) == ["10.0.0.1:80"]


@pytest.mark.parametrize(
    ("match", "yes", "no"),
    [
        ("{uri: {exact: /a}}", {"path": "/a?x=1"}, {"path": "/a/"}),
        ("{uri: {regex: '/[a-c]+'}}", {"path": "/abc"}, {"path": "/abcd"}),
        ("{method: {exact: PUT}}", {"method": "PUT"}, {"method": "GET"}),
        ("{authority: {prefix: rev}}", {}, {"headers": {"host": "other"}}),
        ("{headers: {x-a: {}}}", {"headers": {"x-a": ""}}, {"headers": {}}),
        ("{headers: {x-a: {prefix: b}}}", {"headers": {"x-a": "bc"}}, {"headers": {"x-a": "cb"}}),
        ("{queryParams: {v: {exact: '2'}}}", {"path": "/?v=2"}, {"path": "/?v=3"}),
        ("{uri: {prefix: /a}, method: {exact: PUT}}", {"path": "/ab", "method": "PUT"}, {"path": "/ab"}),
    ],
)
def test_a_match_is_of_the_request_s_head(match: str, yes: dict[str, object], no: dict[str, object]) -> None:
    plan = compiled(rule(match=f"[{match}]"), instances=BOTH)
    virtual = plan.host("reviews", 80)
    assert virtual is not None
    assert virtual.route(head(**yes)) is not None  # type: ignore[arg-type]
    assert virtual.route(head(**no)) is None  # type: ignore[arg-type]


def test_a_split_is_by_weight_and_leaves_out_what_has_none() -> None:
    plan = compiled(
        SUBSETS,
        rule(
            route="[{destination: {host: reviews, subset: v1}, weight: 90}, "
            "{destination: {host: reviews, subset: v2}, weight: 10}, {destination: {host: reviews}, weight: 0}]"
        ),
        instances=BOTH,
    )
    split = routed(plan).split
    assert [cluster.name for cluster in split.clusters] == [f"{HOST}|v1", f"{HOST}|v2"]
    assert (split.weights, split.cumulative) == ((90, 10), (90, 100))
    assert [split.choose(lambda draw=draw: draw) for draw in (0.0, 0.899, 0.9, 0.999)] == [0, 0, 1, 1]  # type: ignore[misc]


def test_a_single_destination_needs_no_weight() -> None:
    assert routed(compiled(rule(), instances=BOTH)).split.weights == (1,)


def test_a_timeout_somebody_asked_for_is_explicit() -> None:
    route = routed(compiled(rule(timeout="2s"), instances=BOTH))
    assert (route.timeout, route.explicit) == (2.0, True)


def test_a_deadline_of_the_outbound_policy_stands_in_for_the_route_s_timeout() -> None:
    policy = doc("OutboundPolicy", "host: reviews\ndeadline: 3s\n")
    route = routed(compiled(policy, instances=BOTH))
    assert (route.timeout, route.explicit) == (3.0, True)
    assert routed(compiled(policy, rule(timeout="2s"), instances=BOTH)).timeout == 2.0


def test_retries_are_as_the_route_has_them_and_the_defaults_for_the_rest() -> None:
    plan = compiled(rule(retries="{attempts: 5, retryOn: 'gateway-error,reset', perTryTimeout: 250ms}"), instances=BOTH)
    retry = routed(plan).retry
    assert retry is not None
    assert (retry.attempts, retry.words, retry.per_try_timeout) == (5, "gateway-error,reset", 0.25)
    plain = routed(compiled(rule(retries="{perTryTimeout: 1s}"), instances=BOTH)).retry
    assert plain is not None
    assert (plain.attempts, plain.words) == (DEFAULT_RETRY.attempts, DEFAULT_RETRY.words)


def test_no_attempts_means_no_retries() -> None:
    assert routed(compiled(rule(retries="{attempts: 0}"), instances=BOTH)).retry is None


def test_a_fault_is_a_share_from_nought_to_one() -> None:
    fault = "{delay: {fixedDelay: 5s, percentage: {value: 10}}, abort: {httpStatus: 503, percentage: {value: 0.5}}}"
    assert routed(compiled(rule(fault=fault), instances=BOTH)).fault == Fault(5.0, 0.1, 503, 0.005)


def test_a_fault_for_nobody_is_none() -> None:
    assert routed(compiled(rule(fault="{abort: {httpStatus: 503}}"), instances=BOTH)).fault is None


@pytest.mark.parametrize(
    ("match", "path", "sent"),
    [
        ("[{uri: {prefix: /api/}}]", "/api/items?x=1", "/v2/items?x=1"),
        ("[{uri: {exact: /api/items}}]", "/api/items?x=1", "/v2/?x=1"),
        ("[{uri: {regex: '/.*'}}]", "/anything", "/v2/"),
        ("[{method: {exact: PUT}}, {uri: {prefix: /api/}}]", "/api/items", "/v2/items"),
    ],
)
def test_a_rewrite_replaces_the_prefix_that_matched_or_else_the_path(match: str, path: str, sent: str) -> None:
    route = routed(compiled(rule(match=match, rewrite="{uri: /v2/}"), instances=BOTH), path)
    index = route.matching(head(path))
    assert index is not None
    assert route.rewrites[index].target(path) == sent


def test_a_rewrite_of_the_authority_leaves_the_path_alone() -> None:
    (rewrite,) = routed(compiled(rule(rewrite="{authority: other}"), instances=BOTH)).rewrites
    assert (rewrite.authority, rewrite.target("/a?b")) == ("other", "/a?b")


@pytest.mark.parametrize(
    ("redirect", "status", "location"),
    [
        ("{uri: /new}", 301, "http://reviews/new?q=1"),
        ("{authority: other.example.com, redirectCode: 308}", 308, "http://other.example.com/old?q=1"),
    ],
)
def test_a_redirect_is_answered_on_the_spot(redirect: str, status: int, location: str) -> None:
    route = routed(compiled(rules(f"- redirect: {redirect}\n"), instances=BOTH))
    assert route.redirect is not None
    assert route.split.clusters == ()
    reply = route.redirect.reply("http", head("/old?q=1"))
    assert (reply.status, dict(reply.headers)[b"location"]) == (status, location.encode())


def test_a_direct_response_has_its_body() -> None:
    direct = routed(compiled(rules("- directResponse: {status: 418, body: {string: tea}}\n"), instances=BOTH)).direct
    assert direct is not None
    assert (direct.status, direct.body, dict(direct.headers)) == (418, b"tea", {b"content-length": b"3"})


def test_headers_are_taken_out_set_and_added_in_both_directions() -> None:
    route = routed(
        compiled(
            rule(headers="{request: {set: {x-a: new}, add: {x-b: more}, remove: [X-C]}, response: {remove: [server]}}"),
            instances=BOTH,
        )
    )
    assert route.headers is not None
    assert route.headers.request is not None
    assert route.headers.response is not None
    before = [(b"X-A", b"old"), (b"x-b", b"one"), (b"x-c", b"gone"), (b"x-d", b"kept")]
    after = [(b"x-b", b"one"), (b"x-d", b"kept"), (b"x-a", b"new"), (b"x-b", b"more")]
    assert route.headers.request.apply(before) == after
    assert route.headers.response.apply([(b"Server", b"x"), (b"date", b"y")]) == [(b"date", b"y")]


def test_the_authority_that_is_set_is_the_host_of_http1() -> None:
    route = routed(compiled(rule(headers="{request: {set: {':authority': other.example}}}"), instances=BOTH))
    assert route.headers is not None
    assert route.headers.request is not None
    assert route.headers.request.apply([(b"Host", b"reviews")]) == [(b"host", b"other.example")]


def test_a_destination_may_change_headers_of_its_own_share() -> None:
    plan = compiled(
        rule(route="[{destination: {host: reviews}, headers: {request: {set: {x-share: a}}}}]"), instances=BOTH
    )
    (ops,) = routed(plan).split.headers
    assert ops is not None
    assert ops.request is not None
    assert ops.request.apply([]) == [(b"x-share", b"a")]


def test_a_route_says_where_it_comes_from() -> None:
    assert routed(compiled(rule(), instances=BOTH)).origin.startswith("0.yaml")


def test_a_short_name_in_a_document_is_of_the_document_s_namespace() -> None:
    text = doc("VirtualService", f"hosts: [reviews]\nhttp: [{{{TO_REVIEWS}, timeout: 9s}}]\n", namespace="shop")
    plan = compiled(text, instances=[reviews(1), reviews(2, namespace="shop")])
    assert routed(plan, host="reviews.shop").timeout == 9.0
    assert routed(plan).timeout == DEFAULT_DEADLINE


@pytest.mark.parametrize(
    ("condition", "headers", "taken"),
    [
        ("{}", {}, True),
        ("{}", {"x-debug": ""}, False),
        ("{exact: a}", {}, True),
        ("{exact: a}", {"X-Debug": "a"}, False),
        ("{exact: a}", {"x-debug": "b"}, True),
        ("{prefix: a}", {"x-debug": "abc"}, False),
        ("{regex: 'a|b'}", {"x-debug": "b"}, False),
    ],
)
def test_without_headers_wants_that_none_matches(condition: str, headers: dict[str, str], taken: bool) -> None:
    plan = compiled(
        doc(
            "VirtualService",
            f"hosts: [reviews]\nhttp: [{{match: [{{withoutHeaders: {{x-debug: {condition}, x-other: {{}}}}}}], "
            "route: [{destination: {host: ratings}}]}, {route: [{destination: {host: reviews}}]}]\n",
        )
    )
    assert only(plan, headers=headers).name.startswith("ratings") is taken
    assert only(plan, headers={**headers, "x-other": "1"}).name.startswith("reviews")
