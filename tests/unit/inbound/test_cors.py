"""CORS by the VirtualService of the service itself, as Envoy's filter applies it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from meshlib.plan.cors import cors_of
from meshlib.resources import Source, load
from tests.support.inbound import Kind, Reply, Request, Side, get

PAGE = "https://shop.example"
POLICY = {
    "allowOrigins": [{"exact": PAGE}, {"prefix": "https://dev."}, {"regex": r"https://[a-z]+\.test"}],
    "allowMethods": ["GET", "PUT"],
    "allowHeaders": ["x-team", "content-type"],
    "exposeHeaders": ["x-total"],
    "maxAge": "24h",
    "allowCredentials": True,
}
DENY_ALL = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec: {}
"""


def service(*routes: Mapping[str, Any], hosts: tuple[str, ...] = ("reviews",), gateways: tuple[str, ...] = ()) -> str:
    to = [{"destination": {"host": "reviews"}}]
    return json.dumps(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": hosts[0].strip("*.")},
            "spec": {
                "hosts": hosts,
                "http": [{"route": to, **route} for route in routes],
                **({"gateways": gateways} if gateways else {}),
            },
        }
    )


def preflight(side: Side, origin: str = PAGE, target: str = "/") -> Reply:
    headers = (("origin", origin), ("access-control-request-method", "PUT"))
    return side.ask(Request("OPTIONS", target, headers))


@pytest.mark.parametrize("origin", [PAGE, "https://dev.shop.example", "https://abc.test"])
def test_a_preflight_of_an_origin_that_is_allowed_is_answered_here(origin: str, kind: Kind) -> None:
    reply = preflight(Side(kind, service({"corsPolicy": POLICY})), origin)
    assert reply.status == 200
    assert reply.seen is None
    assert reply.body == b""
    assert {name: value for name, value in reply.headers.items() if name.startswith("access")} == {
        "access-control-allow-origin": origin,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET,PUT",
        "access-control-allow-headers": "x-team,content-type",
        "access-control-max-age": "86400",
    }
    assert reply.headers["vary"] == "origin"


@pytest.mark.parametrize(
    "origin", ["https://shop.example.evil", "https://abc.test.evil", "null", "http://shop.example"]
)
@pytest.mark.parametrize(("unmatched", "reaches"), [({}, True), ({"unmatchedPreflights": "IGNORE"}, False)])
def test_a_preflight_of_another_origin_gets_no_leave(
    origin: str, unmatched: dict[str, str], reaches: bool, kind: Kind
) -> None:
    reply = preflight(Side(kind, service({"corsPolicy": {**POLICY, **unmatched}})), origin)
    assert reply.status == 200
    assert (reply.seen is not None) == reaches
    assert not [name for name in reply.headers if name.startswith("access")]


def test_the_response_to_an_allowed_origin_says_so_whatever_the_application_says(kind: Kind) -> None:
    side = Side(kind, service({"corsPolicy": POLICY}))
    own = [("Access-Control-Allow-Origin", "*"), ("Vary", "accept")]
    side.reply_headers = own
    reply = side.ask(get("/", ("origin", PAGE)))
    assert reply.seen is not None
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert reply.headers["access-control-expose-headers"] == "x-total"
    assert reply.headers["vary"] == "accept,origin"
    assert "access-control-allow-methods" not in reply.headers
    assert side.ask(get("/")).headers["access-control-allow-origin"] == "*"
    assert side.ask(get("/", ("origin", "https://evil"))).headers["access-control-allow-origin"] == "*"


def test_a_page_can_read_why_it_was_refused(kind: Kind) -> None:
    side = Side(kind, service({"corsPolicy": POLICY}) + DENY_ALL)
    reply = side.ask(get("/", ("origin", PAGE)))
    assert reply.status == 403
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert preflight(side).status == 200


def test_exactly_a_star_is_any_origin(kind: Kind) -> None:
    side = Side(kind, service({"corsPolicy": {"allowOrigins": [{"exact": "*"}]}}))
    assert preflight(side, "https://any").headers["access-control-allow-origin"] == "https://any"


def test_the_first_route_that_matches_counts(kind: Kind) -> None:
    closed = {"match": [{"uri": {"prefix": "/closed"}}]}
    side = Side(kind, service(closed, {"corsPolicy": POLICY}))
    assert preflight(side, target="/closed/1").seen is not None
    assert preflight(side, target="/open").seen is None


def test_options_alone_is_no_preflight(kind: Kind) -> None:
    reply = Side(kind, service({"corsPolicy": POLICY})).ask(Request("OPTIONS", headers=(("origin", PAGE),)))
    assert reply.seen is not None
    assert reply.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    ("text", "applies"),
    [
        (service({"corsPolicy": POLICY}), True),
        (service({"corsPolicy": POLICY}, hosts=("ratings",)), False),
        (service({"corsPolicy": POLICY}, hosts=("reviews.default.svc.cluster.local",)), True),
        (service({"corsPolicy": POLICY}, hosts=("*.cluster.local",)), True),
        (service({"corsPolicy": POLICY}, gateways=("edge",)), False),
        (service({"corsPolicy": POLICY}, gateways=("edge", "mesh")), True),
        (service({}), False),
    ],
)
def test_a_policy_is_for_the_service_whose_host_it_is(text: str, applies: bool) -> None:
    loaded = load([Source("the test", text.encode())])
    assert not loaded.problems
    assert (cors_of(loaded.resources, "default", "reviews") is not None) == applies
    assert cors_of(loaded.resources, "default", None) is None


def test_a_host_of_its_own_goes_before_a_wildcard() -> None:
    texts = [service({"corsPolicy": POLICY}, hosts=("*.cluster.local",)), service({})]
    loaded = load([Source(f"text {index}", text.encode()) for index, text in enumerate(texts)])
    assert cors_of(loaded.resources, "default", "reviews") is None


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({}, "allowOrigins"),
        ({"allowOrigins": [{}]}, "expected one of exact, prefix and regex"),
        ({"allowOrigins": [{"regex": "("}]}, "regex"),
        ({"allowOrigins": [{"exact": PAGE}], "allowMethods": ["GET, PUT"]}, "allowMethods"),
        ({"allowOrigins": [{"exact": PAGE}], "allowHeaders": ["x\r\ny"]}, "allowHeaders"),
        ({"allowOrigins": [{"exact": PAGE}], "exposeHeaders": [""]}, "exposeHeaders"),
        ({"allowOrigins": [{"exact": PAGE}], "unmatchedPreflights": "DROP"}, "unmatchedPreflights"),
    ],
)
def test_what_can_only_be_a_slip_is_refused(policy: dict[str, Any], says: str) -> None:
    loaded = load([Source("the test", service({"corsPolicy": policy}).encode())])
    assert any(says in str(problem) for problem in loaded.problems)
