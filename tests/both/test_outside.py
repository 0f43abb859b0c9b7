"""Hosts the mesh doesn't know: as if it weren't there, unless it was told to refuse them."""

from __future__ import annotations

import pytest

import meshlib
from meshlib.errors import UnknownHost
from tests.both.conftest import Caller, World
from tests.both.servers import answer


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a proxy of the machine's own."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_host_outside_the_mesh_is_called_as_a_bare_client_would(world: World) -> None:
    web = world.start(answer(b"outside"))

    async def scenario(client: Caller) -> None:
        reply = await client.get(f"http://{web.address}/42")
        assert (reply.text, reply.url) == ("outside", f"http://{web.address}/42")
        assert "meshlib" not in reply.extensions

    world.run(scenario)
    (seen,) = web.seen
    assert seen.headers["host"] == web.address
    assert not [name for name in seen.headers if name.startswith("x-envoy")]


def test_a_host_outside_the_mesh_is_not_retried(world: World) -> None:
    web = world.start(answer(status="503 Service Unavailable"))

    async def scenario(client: Caller) -> None:
        assert (await client.get(f"http://{web.address}/")).status_code == 503

    world.run(scenario)
    assert len(web.seen) == 1


def test_a_host_outside_the_mesh_that_cannot_be_reached_says_that_the_call_went_past_the_mesh(world: World) -> None:
    port = world.closed_port()

    async def scenario(client: Caller) -> None:
        with pytest.raises(client.lib.ConnectError) as caught:
            await client.get(f"http://127.0.0.1:{port}/")
        assert any("the mesh doesn't know '127.0.0.1'" in note for note in caught.value.__notes__)

    world.run(scenario)


def test_under_registry_only_a_host_outside_the_mesh_is_refused(world: World) -> None:
    world.configure(outbound="registry-only")
    web = world.start(answer())
    world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        with pytest.raises(UnknownHost):
            await client.get(f"http://{web.address}/")
        assert (await client.get("http://reviews/")).status_code == 200

    world.run(scenario)
    assert web.seen == []


def test_a_host_that_is_to_be_secured_is_never_called_in_the_clear_past_the_mesh(world: World) -> None:
    web = world.start(answer())
    world.apply(
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: outside},"
        " spec: {host: 127.0.0.1, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}}"
    )

    async def scenario(client: Caller) -> None:
        with pytest.raises(UnknownHost, match="its DestinationRule asks for TLS"):
            await client.get(f"http://{web.address}/")

    world.run(scenario)
    assert web.seen == []


def test_a_redirect_leads_out_of_the_mesh(world: World) -> None:
    web = world.start(answer(b"outside"))
    world.serve("reviews", answer(status="302 Found", Location=f"http://{web.address}/42"))

    async def scenario(client: Caller) -> None:
        assert (await client.get("http://reviews/", follow_redirects=True)).text == "outside"

    world.run(scenario)


def test_a_proxy_of_the_environment_is_used_for_hosts_outside_the_mesh_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = world.start(answer(b"by proxy"))
    world.serve("reviews", answer(b"direct"))
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")

    async def scenario(client: Caller) -> None:
        assert (await client.get("http://outside.test/42")).text == "by proxy"
        assert (await client.get("http://reviews/")).text == "direct"

    world.run(scenario)
    assert proxy.targets == ["http://outside.test/42"]


def test_a_proxy_that_is_given_is_used_for_hosts_outside_the_mesh_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = world.start(answer(b"by proxy"))
    world.serve("reviews", answer(b"direct"))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{world.closed_port()}")

    async def scenario(client: Caller) -> None:
        assert (await client.get("http://outside.test/42")).text == "by proxy"
        assert (await client.get("http://reviews/")).text == "direct"

    world.run(scenario, transport={"proxy": f"http://{proxy.address}"})
    assert proxy.targets == ["http://outside.test/42"]


def test_a_client_of_meshlibs_own_gives_its_proxy_to_hosts_outside_the_mesh_only(sync_world: World) -> None:
    proxy = sync_world.start(answer(b"by proxy"))
    sync_world.serve("reviews", answer(b"direct"))
    sync_world.mesh.open()
    options = {"proxy": f"http://{proxy.address}", "trust_env": False}
    with meshlib.Client(mesh=sync_world.mesh, **options) as client:
        assert client.get("http://outside.test/42").text == "by proxy"
        assert client.get("http://reviews/").text == "direct"
        assert not client.trust_env


def test_a_misspelt_option_of_a_transport_is_an_error_at_once(world: World) -> None:
    with pytest.raises(TypeError, match=r"HTTPTransport got an unexpected .* 'vrify'"):
        world.mesh.transport(world.flavour.client, vrify=False)


@pytest.mark.parametrize("without", ["127.0.0.1", "127.0.0.1,other.test", "*"])
def test_no_proxy_names_hosts_that_are_called_directly(
    world: World, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    proxy = world.start(answer(b"by proxy"))
    web = world.start(answer(b"direct"))
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
    monkeypatch.setenv("NO_PROXY", without)

    async def scenario(client: Caller) -> None:
        assert (await client.get(f"http://{web.address}/")).text == "direct"

    world.run(scenario)
    assert proxy.seen == []


def test_a_client_that_does_not_trust_its_environment_uses_no_proxy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = world.start(answer(b"direct"))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{world.closed_port()}")

    async def scenario(client: Caller) -> None:
        assert (await client.get(f"http://{web.address}/")).text == "direct"

    world.run(scenario, transport={"trust_env": False})
