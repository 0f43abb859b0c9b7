"""What documents do to calls: faults, redirects, rewrites, headers, splits, circuit breakers."""

from __future__ import annotations

from collections import Counter
from time import monotonic

import pytest

from meshlib.errors import CircuitOpen, DeadlineExceeded
from tests.both.conftest import Caller, World
from tests.both.servers import answer

BROKEN = answer(status="500 Broken")


def test_an_injected_delay_holds_the_call_back(world: World) -> None:
    world.rule("fault: {delay: {fixedDelay: 0.05s, percentage: {value: 100}}}")
    world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        began = monotonic()
        await client.get("http://reviews/")
        assert monotonic() - began >= 0.05

    world.run(scenario)


def test_an_injected_delay_ends_with_the_deadline(world: World) -> None:
    world.rule("fault: {delay: {fixedDelay: 60s, percentage: {value: 100}}}, timeout: 0.05s")
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        await client.fails(DeadlineExceeded)

    world.run(scenario)
    assert reviews.seen == []


def test_an_injected_abort_answers_in_place_of_the_service(world: World) -> None:
    world.rule("fault: {abort: {httpStatus: 418, percentage: {value: 100}}}")
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/")
        assert (reply.status_code, reply.text) == (418, "fault filter abort")
        assert reply.extensions["meshlib"].evidence(0.0).attempts == ()

    world.run(scenario)
    assert reviews.seen == []


def test_a_redirect_of_the_mesh_is_followed(world: World) -> None:
    world.rule("redirect: {uri: /new, authority: ratings}")
    ratings = world.serve("ratings", answer(b"five"))

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/old?page=1")
        assert (reply.status_code, reply.headers["location"]) == (301, "http://ratings/new?page=1")
        assert (await client.get("http://reviews/old", follow_redirects=True)).text == "five"

    world.run(scenario)
    assert ratings.targets == ["/new"]


def test_a_direct_response_is_the_answer(world: World) -> None:
    world.rule('directResponse: {status: 503, body: {string: "closed"}}, headers: {response: {set: {x-why: sale}}}')

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/")
        assert (reply.status_code, reply.text, reply.headers["x-why"]) == (503, "closed", "sale")
        assert reply.elapsed.total_seconds() >= 0

    world.run(scenario)


def test_a_request_that_no_rule_matches_is_answered_404(world: World) -> None:
    world.rule("match: [{uri: {prefix: /api}}]")
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        assert (await client.get("http://reviews/other")).status_code == 404
        assert (await client.get("http://reviews/api/1")).status_code == 200

    world.run(scenario)
    assert reviews.targets == ["/api/1"]


def test_headers_are_changed_on_the_way_out_and_on_the_way_back(world: World) -> None:
    world.rule(
        "headers: {request: {set: {x-set: new}, add: {x-add: more}, remove: [x-gone]},"
        " response: {set: {x-set: ours}, remove: [x-secret]}}"
    )
    reviews = world.serve("reviews", answer(X_Set="theirs", X_Secret="key", X_Kept="yes"))

    async def scenario(client: Caller) -> None:
        headers = {"X-Set": "old", "X-Add": "some", "X-Gone": "here"}
        reply = await client.get("http://reviews/", headers=headers)
        assert reply.headers["x-set"] == "ours"
        assert reply.headers["x-kept"] == "yes"
        assert "x-secret" not in reply.headers
        assert reply.request.headers["x-gone"] == "here"

    world.run(scenario)
    headers = reviews.seen[0].headers
    assert (headers["x-set"], headers["x-add"]) == ("new", "more")
    assert "x-gone" not in headers


def test_path_and_authority_are_rewritten_on_the_wire_only(world: World) -> None:
    world.rule("match: [{uri: {prefix: /api/}}], rewrite: {uri: /v2/, authority: inner.test}")
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/api/42?page=1")
        assert reply.url == "http://reviews/api/42?page=1"

    world.run(scenario)
    assert [(seen.target, seen.headers["host"]) for seen in reviews.seen] == [("/v2/42?page=1", "inner.test")]


SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 50}
    - {destination: {host: reviews, subset: v2}, weight: 50}
"""


def test_who_asks_decides_which_version_answers(world: World) -> None:
    world.apply(SUBSETS)
    world.serve("reviews", answer(b"v1"), version="v1")
    world.serve("reviews", answer(b"v2"), version="v2")

    async def scenario(client: Caller) -> None:
        jasons = [(await client.get("http://reviews/", headers={"End-User": "jason"})).text for _ in range(5)]
        assert jasons == ["v2"] * 5
        others = Counter([(await client.get("http://reviews/")).text for _ in range(60)])
        assert set(others) == {"v1", "v2"}

    world.run(scenario)


def test_a_circuit_breaker_opens_lets_a_probe_through_and_closes(world: World) -> None:
    world.outbound("circuitBreaker: {consecutiveFailures: 2, openFor: 0.2s}")
    reviews = world.serve("reviews", BROKEN)

    async def works(client: Caller) -> bool:
        try:
            return (await client.get("http://reviews/")).status_code == 200
        except CircuitOpen:
            return False

    async def scenario(client: Caller) -> None:
        for _ in range(2):
            assert (await client.get("http://reviews/")).status_code == 500
        with pytest.raises(CircuitOpen):
            await client.get("http://reviews/")
        assert len(reviews.seen) == 2
        reviews.answer_with(answer())
        opened = monotonic()
        while not await works(client):
            assert monotonic() < opened + 10
        assert await works(client)

    world.run(scenario)


def test_an_instance_that_fails_again_and_again_is_ejected(world: World) -> None:
    world.traffic(
        "loadBalancer: {simple: ROUND_ROBIN},"
        " outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 60s, maxEjectionPercent: 50}"
    )
    good, bad = world.serve("reviews", answer()), world.serve("reviews", BROKEN)

    async def scenario(client: Caller) -> None:
        for _ in range(20):
            await client.get("http://reviews/")

    world.run(scenario)
    assert (len(good.seen), len(bad.seen)) == (18, 2)
