"""Overload through both middlewares."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshlib.context import INHERITED
from tests.support import eventually
from tests.support.inbound import Kind, Side, get

BOTH = pytest.mark.parametrize("kind", ["asgi", "wsgi"])
PEER = "spiffe://mesh.test/ns/default/sa/web"


def side(kind: Kind, spec: str) -> Side:
    """A middleware under an InboundPolicy; its application answers with the priority that calls would inherit."""
    document = f"apiVersion: meshlib/v1\nkind: InboundPolicy\nmetadata: {{name: one}}\nspec: {spec}\n"
    return Side(kind, document, answer=lambda seen: INHERITED.get().priority.encode())


def occupy(one: Side) -> None:
    """Have somebody inside."""
    load = one.mesh.plan.inbound.load if one.mesh.plan is not None else None
    assert load is not None
    assert one.state.load.places.enter_free(load.bounds)


@BOTH
def test_a_place_is_given_back_with_the_response(kind: Kind) -> None:
    one = side(kind, "{concurrency: {maxRequests: 1, maxPending: 0}}")
    for _ in range(3):
        assert one.ask(get()).status == 200
    assert one.state.load.places.inside == 0


@BOTH
def test_who_finds_no_place_is_told_not_to_retry(kind: Kind) -> None:
    one = side(kind, "{concurrency: {maxRequests: 1, maxPending: 0}}")
    occupy(one)
    reply = one.ask(get())
    assert (reply.status, reply.code, reply.seen) == (503, "UO", None)
    assert reply.headers["x-envoy-overloaded"] == "true"
    assert 1 <= int(reply.headers["retry-after"]) <= 4


@BOTH
def test_who_waits_gets_the_place_of_who_goes(kind: Kind) -> None:
    one = side(kind, "{concurrency: {maxRequests: 1, maxWait: 60s}}")
    occupy(one)
    places = one.state.load.places
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(one.ask, get())
        eventually(lambda: places.waiting == 1)
        places.leave()
        places.give(time.monotonic(), 1)
        assert reply.result(30).status == 200
    assert (places.inside, places.waiting) == (0, 0)


@BOTH
def test_who_waits_in_vain_is_turned_away(kind: Kind) -> None:
    one = side(kind, "{concurrency: {maxRequests: 1, maxWait: 1ms}}")
    occupy(one)
    assert one.ask(get()).code == "UO"
    assert one.state.load.places.waiting == 0


@BOTH
def test_nobody_waits_beyond_the_deadline_of_the_caller(kind: Kind) -> None:
    one = side(kind, "{concurrency: {maxRequests: 1, maxWait: 60s}}")
    occupy(one)
    begun = time.monotonic()
    assert one.ask(get("/", ("x-envoy-expected-rq-timeout-ms", "20"))).status in {503, 504}
    assert time.monotonic() - begun < 30


@BOTH
def test_who_has_waited_too_long_before_us_is_turned_away_by_his_priority(kind: Kind) -> None:
    one = side(kind, "{overload: {queueTime: 1s}}")
    late = ("x-request-start", f"t={time.time() - 2:.3f}")  # twice the threshold
    assert one.ask(get("/", late, ("x-meshlib-priority", "best-effort"))).code == "UO"
    assert one.ask(get("/", late, ("x-meshlib-priority", "critical"))).status == 200
    assert one.ask(get("/", ("x-meshlib-priority", "best-effort"))).status == 200


@BOTH
@pytest.mark.parametrize(
    ("spec", "headers", "peer", "inherited"),
    [
        ("{priority: {}}", {"x-meshlib-priority": "critical"}, "", b"critical"),
        ("{priority: {}}", {"x-meshlib-priority": "nonsense"}, "", b""),
        ("{priority: {}}", {}, "", b""),
        ("{priority: {trust: IDENTIFIED}}", {"x-meshlib-priority": "critical"}, "", b""),
        ("{priority: {trust: IDENTIFIED}}", {"x-meshlib-priority": "critical"}, PEER, b"critical"),
        ("{priority: {rules: [{match: [{uri: {prefix: /}}], priority: best-effort}]}}", {}, "", b"best-effort"),
        ("{concurrency: {maxRequests: 5}}", {"x-meshlib-priority": "best-effort"}, "", b"best-effort"),
        ("{requestBounds: {maxHeaders: 50}}", {"x-meshlib-priority": "best-effort"}, "", b"best-effort"),
    ],
)
def test_calls_inherit_the_priority_that_the_request_came_in_with(
    kind: Kind, spec: str, headers: dict[str, str], peer: str, inherited: bytes
) -> None:
    assert side(kind, spec).ask(get("/", *headers.items(), peer=peer)).body == inherited


@BOTH
def test_a_plan_without_concurrency_frees_who_came_under_one(kind: Kind) -> None:
    one = side(kind, "{concurrency: {maxRequests: 1, maxPending: 0}}")
    occupy(one)
    one.obey("")
    assert one.ask(get()).status == 200


@BOTH
def test_a_request_that_the_log_fails_on_leaves_no_place_taken(kind: Kind) -> None:
    """As one fails whose user wrote a filter with a mistake."""
    one = side(kind, "{concurrency: {maxRequests: 1}}")

    def fail(*_: object) -> None:
        raise ValueError("a filter's mistake")

    one.gate.tell = fail  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="mistake"):
        one.ask(get())
    assert one.state.load.places.inside == 0
