"""mTLS of the mesh under every client: the URL stays `http://`, and errors tell who was there instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshlib.errors import ConnectFailed
from meshlib.plan.plan import Plan
from meshlib.registries.base import Instance
from tests.both.conftest import Caller, World, at_once
from tests.both.servers import Web, answer, in_turn
from tests.support.authority import Authority, Issued
from tests.unit.identity.hands import CALLER
from tests.wire.secured import SERVICE, server_context

ROOT = Authority()
RATINGS = "spiffe://mesh.test/ns/default/dc/dc1/svc/ratings"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the identity of the calling process lies."""
    folder = tmp_path / "identity"
    folder.mkdir()
    put(folder, ROOT.issue(CALLER))
    return folder


@pytest.fixture
def meshed(world: World, folder: Path) -> World:
    """A world whose client has an identity."""
    world.configure(identity=f"files://{folder}")
    return world


def put(folder: Path, issued: Issued) -> None:
    (folder / "tls.crt").write_bytes(issued.certificates)
    (folder / "tls.key").write_bytes(issued.key)
    (folder / "ca.crt").write_bytes(ROOT.roots)


def serve(world: World, handler: Any, issued: Issued, announced: str | None = SERVICE) -> Web:
    """An instance of reviews that has the certificate, and announces an identity."""
    web = world.start(handler, server_context(issued, root=ROOT))
    at_once(
        world.registry.register(Instance("reviews", "127.0.0.1", web.port, id=str(web.port), identity=announced or ""))
    )
    return web


def test_an_endpoint_that_announces_an_identity_is_called_over_mtls(meshed: World) -> None:
    web = serve(meshed, answer(b"secret"), ROOT.issue(SERVICE))

    async def scenario(client: Caller) -> None:
        for _ in range(3):
            reply = await client.get("http://reviews/42")
            assert (reply.text, reply.url) == ("secret", "http://reviews/42")

    meshed.run(scenario)
    assert [seen.headers["host"] for seen in web.seen] == ["reviews"] * 3
    assert web.connections == 1


def test_who_is_there_instead_is_told_and_hears_nothing(meshed: World) -> None:
    web = serve(meshed, answer(), ROOT.issue(RATINGS))

    async def scenario(client: Caller) -> None:
        error = await client.fails(ConnectFailed, method="POST", content=b"pay")
        assert isinstance(error, client.lib.ConnectError)
        assert f"{web.address}: its certificate is for {RATINGS}, expected {SERVICE}" in str(error)
        assert {attempt.outcome for attempt in error.evidence.attempts} == {"tls-failure"}
        await client.eventually(lambda: web.ended == web.connections)

    meshed.run(scenario)
    assert web.seen == []


@pytest.mark.slow
def test_another_endpoint_is_tried_even_with_a_post(meshed: World) -> None:
    serve(meshed, answer(), ROOT.issue(RATINGS))
    good = serve(meshed, answer(b"paid"), ROOT.issue(SERVICE))

    async def scenario(client: Caller) -> None:
        for _ in range(8):
            assert (await client.post("http://reviews/", content=b"pay")).text == "paid"

    meshed.run(scenario)
    assert [seen.body for seen in good.seen] == [b"pay"] * 8


@pytest.mark.slow
def test_an_endpoint_that_isnt_who_it_should_be_is_ejected(meshed: World) -> None:
    bad = serve(meshed, answer(), ROOT.issue(RATINGS))
    serve(meshed, answer(), ROOT.issue(SERVICE))
    meshed.traffic("outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 60s, maxEjectionPercent: 50}")

    async def scenario(client: Caller) -> None:
        for _ in range(30):
            await client.get("http://reviews/")
        assert bad.connections == 2

    meshed.run(scenario)


def test_an_endpoint_that_announces_nothing_is_called_in_the_clear(meshed: World) -> None:
    meshed.serve("reviews", answer(b"plain"))

    async def scenario(client: Caller) -> None:
        assert (await client.get("http://reviews/")).text == "plain"

    meshed.run(scenario)


def test_mtls_that_is_asked_for_by_a_process_without_an_identity_fails(world: World) -> None:
    web = serve(world, answer(), ROOT.issue(SERVICE))
    world.traffic("tls: {mode: ISTIO_MUTUAL}")

    async def scenario(client: Caller) -> None:
        assert "MESHLIB_IDENTITY" in str(await client.fails(ConnectFailed))

    world.run(scenario)
    assert web.connections == 0


@pytest.mark.slow
def test_an_endpoint_that_is_secured_from_now_on_is_not_called_in_the_clear_again(meshed: World) -> None:
    web = serve(meshed, in_turn(answer(b"one"), answer(b"two")), ROOT.issue(SERVICE))
    meshed.traffic("tls: {mode: DISABLE}")

    async def scenario(client: Caller) -> None:
        error = await client.fails(Exception)  # type: ignore[arg-type]  # how a TLS server ends plain text
        assert error
        meshed.traffic("tls: {mode: ISTIO_MUTUAL}")
        await client.eventually(
            lambda: meshed.mesh.plan is not None and any(c.peers for c in meshed.mesh.plan.clusters.values())
        )
        assert (await client.get("http://reviews/")).text == "one"

    meshed.run(scenario)
    assert len(web.seen) == 1


def swapped(world: World, before: Plan | None) -> Callable[[], bool]:
    return lambda: world.mesh.plan is not before


@pytest.mark.slow
def test_a_change_that_is_none_of_an_endpoints_leaves_its_connection(meshed: World) -> None:
    web = serve(meshed, answer(), ROOT.issue(SERVICE))

    async def scenario(client: Caller) -> None:
        await client.get("http://reviews/")
        for swap in range(1, 51):
            before = meshed.mesh.plan
            if swap % 5 == 0:
                meshed.register("ratings", 8000 + swap)
            elif swap % 2:
                meshed.rule(f"timeout: {swap}s", host="ratings")
            else:
                meshed.rule(f"timeout: {swap}s")  # its route changes, and its endpoints don't
            await client.eventually(swapped(meshed, before))
            assert (await client.get("http://reviews/")).status_code == 200

    meshed.run(scenario)
    assert len(web.seen) == 51
    assert web.connections == 1


@pytest.mark.slow
def test_the_connection_to_an_endpoint_that_left_is_closed_and_no_other(meshed: World) -> None:
    stays, leaves = (serve(meshed, answer(), ROOT.issue(SERVICE)) for _ in range(2))
    meshed.traffic("loadBalancer: {simple: ROUND_ROBIN}")

    async def scenario(client: Caller) -> None:
        for _ in range(4):
            await client.get("http://reviews/")
        assert (stays.connections, leaves.connections) == (1, 1)
        before = meshed.mesh.plan
        at_once(meshed.registry._remove(Instance("reviews", "127.0.0.1", leaves.port, id=str(leaves.port))))
        await client.eventually(swapped(meshed, before))
        await client.get("http://reviews/")
        await client.eventually(lambda: leaves.ended == 1)
        assert stays.ended == 0

    meshed.run(scenario)
    assert stays.connections == 1
