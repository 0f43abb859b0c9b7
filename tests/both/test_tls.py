"""`https://` hosts: the endpoint is dialled, while certificate and server name are those of the logical host."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from meshlib.errors import ConnectFailed, ConnectionBroken
from tests.both.conftest import Caller, World
from tests.both.servers import answer, half, in_turn, never, reset
from tests.both.tls import HTTP2, client_context, server_context
from tests.wire.server import Server

HOST = "api.test"
URL = f"https://{HOST}/"


@pytest.fixture
def trusting() -> dict[str, Any]:
    """Options of a transport that trusts our authority."""
    return {"verify": client_context()}


def entry(world: World, *ports: int) -> None:
    """A ServiceEntry for the host, with an endpoint on each of `ports`."""
    endpoints = ", ".join(f"{{address: 127.0.0.1, ports: {{https: {port}}}}}" for port in ports)
    world.apply(
        "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: api}, spec: {hosts: [api.test],"
        " ports: [{number: 443, name: https, protocol: HTTPS}], resolution: STATIC,"
        f" location: MESH_EXTERNAL, endpoints: [{endpoints}]}}}}"
    )


def test_the_certificate_and_the_server_name_are_those_of_the_logical_host(
    world: World, trusting: dict[str, Any]
) -> None:
    names: list[str] = []
    context = server_context(HOST)
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    web = world.start(answer(b"secret"), context)
    entry(world, web.port)

    async def scenario(client: Caller) -> None:
        for _ in range(2):
            reply = await client.get(URL)
            assert (reply.text, reply.url, reply.http_version) == ("secret", URL, "HTTP/1.1")

    world.run(scenario, transport=trusting)
    assert names == [HOST]
    assert [seen.headers["host"] for seen in web.seen] == [HOST] * 2
    assert web.connections == 1


def test_a_certificate_for_another_host_is_refused(world: World, trusting: dict[str, Any]) -> None:
    web = world.start(answer(), server_context("other.test"))
    entry(world, web.port)

    async def scenario(client: Caller) -> None:
        with pytest.raises(ConnectFailed) as caught:
            await client.get(URL)
        assert isinstance(caught.value, client.lib.ConnectError)
        assert "certificate" in str(caught.value.__cause__)
        await client.eventually(lambda: web.ended == web.connections)

    world.run(scenario, transport=trusting)
    assert web.seen == []


@pytest.mark.slow
def test_a_certificate_of_an_unknown_authority_is_refused(world: World) -> None:
    web = world.start(answer(), server_context(HOST))
    entry(world, web.port)

    async def scenario(client: Caller) -> None:
        with pytest.raises(ConnectFailed):
            await client.get(URL)
        await client.eventually(lambda: web.ended == web.connections)

    world.run(scenario, transport={"verify": ssl.create_default_context()})
    assert web.seen == []


@pytest.mark.slow
def test_a_call_over_tls_is_retried(world: World, trusting: dict[str, Any]) -> None:
    web = world.start(in_turn(reset, answer(status="503 Service Unavailable"), answer()), server_context(HOST))
    entry(world, web.port)

    async def scenario(client: Caller) -> None:
        reply = await client.get(URL)
        evidence = reply.extensions["meshlib"].evidence(0.0)
        assert [attempt.outcome for attempt in evidence.attempts] == ["reset", "503", "200"]

    world.run(scenario, transport=trusting)


@pytest.mark.slow
def test_a_post_over_tls_whose_connection_breaks_is_sent_exactly_once(world: World, trusting: dict[str, Any]) -> None:
    web = world.start(in_turn(reset, answer()), server_context(HOST))
    entry(world, web.port)

    async def scenario(client: Caller) -> None:
        with pytest.raises(ConnectionBroken):
            await client.post(URL, content=b"pay")

    world.run(scenario, transport=trusting)
    assert len(web.seen) == 1


@pytest.mark.slow
@pytest.mark.parametrize("handler", [never, half], ids=["head", "body"])
def test_the_deadline_holds_over_tls(world: World, trusting: dict[str, Any], handler: Any) -> None:
    web = world.start(handler, server_context(HOST))
    entry(world, web.port)
    world.rule("timeout: 0.2s", host=HOST)

    async def scenario(client: Caller) -> None:
        with pytest.raises(client.lib.ReadTimeout, match=HOST.replace(".", r"\.")):
            await client.get(URL)
        await client.eventually(lambda: web.ended == web.connections)

    world.run(scenario, transport=trusting)


@pytest.mark.slow
def test_a_cancelled_call_over_tls_leaves_nothing_in_flight(async_world: World, trusting: dict[str, Any]) -> None:
    web = async_world.start(never, server_context(HOST))
    entry(async_world, web.port)

    async def scenario(client: Caller) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, URL)
            await client.eventually(lambda: web.seen)
            group.cancel_scope.cancel()
        assert async_world.in_flight() == 0
        await client.eventually(lambda: web.ended == web.connections)

    async_world.run(scenario, transport=trusting)


@pytest.fixture
def http2(world: World) -> Iterator[HTTP2]:
    """A server of HTTP/2 for the host."""
    service = HTTP2(server_context(HOST, "h2"), b"two")
    with Server(service) as server:
        entry(world, server.port)
        yield service
        world.mesh.close()


@pytest.mark.slow
def test_http2_is_spoken_where_it_was_asked_for(world: World, http2: HTTP2, trusting: dict[str, Any]) -> None:
    async def scenario(client: Caller) -> None:
        for _ in range(3):
            reply = await client.post(f"{URL}42?page=1", content=b"stars")
            assert (reply.text, reply.http_version, reply.url) == ("two", "HTTP/2", f"{URL}42?page=1")

    world.run(scenario, transport={**trusting, "http2": True})
    assert http2.connections == 1
    assert http2.bodies == [b"stars"] * 3
    assert {(one[":authority"], one[":path"], one[":method"]) for one in http2.requests} == {
        (HOST, "/42?page=1", "POST")
    }
    assert "x-envoy-expected-rq-timeout-ms" in http2.requests[0]


@pytest.mark.slow
def test_a_streamed_body_goes_over_http2(world: World, http2: HTTP2, trusting: dict[str, Any]) -> None:
    async def scenario(client: Caller) -> None:
        await client.post(URL, content=client.body(iter([b"x" * 1000] * 200)))

    world.run(scenario, transport={**trusting, "http2": True})
    assert [len(body) for body in http2.bodies] == [200_000]


@pytest.mark.slow
def test_http1_is_spoken_with_a_server_that_knows_no_http2(world: World, trusting: dict[str, Any]) -> None:
    web = world.start(answer(), server_context(HOST))
    entry(world, web.port)

    async def scenario(client: Caller) -> None:
        assert (await client.get(URL)).http_version == "HTTP/1.1"

    world.run(scenario, transport={**trusting, "http2": True})


@pytest.mark.slow
def test_one_client_serves_two_loops_over_tls(async_world: World, trusting: dict[str, Any]) -> None:
    web = async_world.start(answer(), server_context(HOST))
    entry(async_world, web.port)
    world = async_world
    world.mesh.open()
    callers: list[Caller] = []

    async def first() -> None:
        callers.append(Caller(world.flavour, world.mesh, trusting, {}))
        await callers[0].get(URL)

    async def second() -> None:
        await callers[0].get(URL)
        await callers[0].close_client()

    world.run_plain(first)
    world.run_plain(second)
    assert web.connections == 2
