"""What a user of a client sees of a call that goes well: nothing of the mesh."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

import meshlib
from tests.both.conftest import Caller, World
from tests.both.servers import Seen, answer, in_turn


def test_a_call_reaches_an_instance_by_the_name_of_its_service(world: World) -> None:
    reviews = world.serve("reviews", answer(b"four stars"))

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/42?page=1")
        assert (reply.status_code, reply.text, reply.http_version) == (200, "four stars", "HTTP/1.1")
        assert reply.url == reply.request.url == "http://reviews/42?page=1"

    world.run(scenario)
    assert [(seen.method, seen.target, seen.headers["host"]) for seen in reviews.seen] == [
        ("GET", "/42?page=1", "reviews")
    ]


@pytest.mark.parametrize("host", ["reviews", "reviews.default", "reviews.default.svc.cluster.local", "REVIEWS"])
def test_a_service_is_known_by_its_short_and_its_long_names(world: World, host: str) -> None:
    world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        assert (await client.get(f"http://{host}/")).status_code == 200

    world.run(scenario)


def test_a_port_in_the_url_stays_in_the_host_header_and_is_not_dialled(world: World) -> None:
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews:8080/")
        assert reply.url == "http://reviews:8080/"

    world.run(scenario)
    assert reviews.seen[0].headers["host"] == "reviews:8080"


def test_calls_one_after_another_share_a_connection(world: World) -> None:
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        for _ in range(5):
            await client.get("http://reviews/")

    world.run(scenario)
    assert (len(reviews.seen), reviews.connections) == (5, 1)


def test_calls_are_spread_over_the_instances(world: World) -> None:
    world.apply(
        """
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {name: reviews}
        spec: {host: reviews, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
        """
    )
    webs = [world.serve("reviews", answer()) for _ in range(3)]

    async def scenario(client: Caller) -> None:
        for _ in range(6):
            await client.get("http://reviews/")

    world.run(scenario)
    assert [len(web.seen) for web in webs] == [2, 2, 2]


def test_a_cookie_of_a_logical_host_comes_back_to_every_instance_of_it(world: World) -> None:
    webs = [world.serve("reviews", answer(Set_Cookie="basket=7; Path=/")) for _ in range(2)]
    ratings = world.serve("ratings", answer())

    async def scenario(client: Caller) -> None:
        for _ in range(6):
            await client.get("http://reviews/")
        await client.get("http://ratings/")
        assert dict(client.client.cookies) == {"basket": "7"}

    world.run(scenario)
    cookies = [seen.headers.get("cookie") for web in webs for seen in web.seen]
    assert (cookies.count(None), cookies.count("basket=7")) == (1, 5)
    assert "cookie" not in ratings.seen[0].headers


def test_relative_redirects_are_followed_within_the_service(world: World) -> None:
    reviews = world.serve("reviews", in_turn(answer(status="302 Found", Location="/new"), answer(b"here")))

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/old", follow_redirects=True)
        assert (reply.url, reply.text) == ("http://reviews/new", "here")
        assert [str(earlier.url) for earlier in reply.history] == ["http://reviews/old"]

    world.run(scenario)
    assert reviews.targets == ["/old", "/new"]
    assert reviews.connections == 1


def test_redirects_to_another_service_of_the_mesh_are_followed(world: World) -> None:
    world.serve("reviews", answer(status="307 Temporary Redirect", Location="http://ratings/1"))
    ratings = world.serve("ratings", answer(b"five"))

    async def scenario(client: Caller) -> None:
        reply = await client.post("http://reviews/1", content=b"stars", follow_redirects=True)
        assert (reply.url, reply.text) == ("http://ratings/1", "five")

    world.run(scenario)
    assert [(seen.method, seen.headers["host"], seen.body) for seen in ratings.seen] == [("POST", "ratings", b"stars")]


CHALLENGE = 'Digest realm="shop", nonce="abc", qop="auth", algorithm=MD5'


def test_a_digest_challenge_is_answered(world: World) -> None:
    reviews = world.serve("reviews", in_turn(answer(status="401 Unauthorized", WWW_Authenticate=CHALLENGE), answer()))

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/secret", auth=client.lib.DigestAuth("jason", "pw"))
        assert reply.status_code == 200

    world.run(scenario)
    first, second = (seen.headers.get("authorization", "") for seen in reviews.seen)
    assert first == ""
    assert second.startswith("Digest ")
    assert 'uri="/secret"' in second


def test_event_hooks_are_called_once_for_a_call_that_was_retried(world: World) -> None:
    world.serve("reviews", in_turn(answer(status="503 Service Unavailable"), answer()))
    called: list[str] = []

    def sync_hook(about: Any) -> None:
        called.append(type(about).__name__)

    async def async_hook(about: Any) -> None:
        called.append(type(about).__name__)

    hook = sync_hook if world.sync else async_hook

    async def scenario(client: Caller) -> None:
        await client.get("http://reviews/")

    world.run(scenario, event_hooks={"request": [hook], "response": [hook]})
    assert called == ["Request", "Response"]


def test_a_compressed_body_is_decoded(world: World) -> None:
    world.serve("reviews", answer(gzip.compress(b"four stars" * 1000), Content_Encoding="gzip"))

    async def scenario(client: Caller) -> None:
        assert (await client.get("http://reviews/")).content == b"four stars" * 1000

    world.run(scenario)


def test_a_head_request_has_a_length_and_no_body(world: World) -> None:
    def handler(seen: Seen) -> bytes:
        return answer(b"x" * 10).removesuffix(b"x" * 10) if seen.method == "HEAD" else answer()

    reviews = world.serve("reviews", handler)

    async def scenario(client: Caller) -> None:
        reply = await client.request("HEAD", "http://reviews/")
        assert (reply.headers["content-length"], reply.content) == ("10", b"")
        await client.get("http://reviews/")

    world.run(scenario)
    assert reviews.connections == 1


def test_a_response_carries_the_evidence_of_its_call(world: World) -> None:
    reviews = world.serve("reviews", in_turn(answer(status="503 Service Unavailable"), answer()))

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/")
        evidence = reply.extensions["meshlib"].evidence(0.0)
        assert evidence.host == "reviews"
        assert evidence.cluster == "reviews.default.svc.cluster.local"
        assert evidence.route == "default"
        assert evidence.version == world.mesh.plan.version  # type: ignore[union-attr]  # the mesh is open
        assert [(one.endpoint, one.outcome, one.kind) for one in evidence.attempts] == [
            (reviews.address, "503", "first"),
            (reviews.address, "200", "retry"),
        ]

    world.run(scenario)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_response_without_a_body_frees_its_connection(world: World, status: str) -> None:
    reviews = world.serve("reviews", in_turn(f"HTTP/1.1 {status}\r\n\r\n".encode(), answer(b"next")))

    async def scenario(client: Caller) -> None:
        assert (await client.get("http://reviews/")).content == b""
        assert (await client.get("http://reviews/")).text == "next"

    world.run(scenario)
    assert reviews.connections == 1


@pytest.mark.parametrize("fault", ["a length that is a lie", "a header of two lines"])
def test_a_request_that_cannot_be_written_is_the_callers_mistake(world: World, fault: str) -> None:
    world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        options: dict[str, Any] = {"headers": {"x-note": "one\r\ntwo: 2"}, "content": b"12345"}
        if fault == "a length that is a lie":
            options = {"headers": {"content-length": "3"}, "content": client.body(iter([b"12345"]))}
        with pytest.raises(client.lib.LocalProtocolError):
            await client.post("http://reviews/", **options)

    world.run(scenario)


def test_the_clients_of_meshlib_live_in_the_mesh(world: World) -> None:
    world.serve("reviews", answer(b"four stars"))
    world.mesh.open()

    async def main() -> None:
        if world.sync:
            with meshlib.Client(mesh=world.mesh, headers={"x-note": "1"}) as client:
                assert client.get("http://reviews/").text == "four stars"
        else:
            async with meshlib.AsyncClient(mesh=world.mesh, http2=True) as client:
                assert (await client.get("http://reviews/")).text == "four stars"

    world.run_plain(main)
