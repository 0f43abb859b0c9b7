"""mTLS by Consul's own CA, end to end: its root changes under load, and names in its catalog prove nothing."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

import meshlib
from meshlib.identity.loading import load_into
from tests.integration.consul.test_identity import change_root
from tests.integration.workers.lanes import Load
from tests.integration.workers.realm import LEDGER, address, shown
from tests.support import eventually
from tests.support.consul import ConsulAgent, StartConsul
from tests.support.servers import Fleet
from tests.wire.secured import Endpoint
from tests.wire.server import Server as Listener

PATIENCE = 60.0  # seconds; Consul's agent takes up to half a minute for a new leaf after a change of roots


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    started = Fleet(tmp_path, Path(__file__).parents[1] / "apps")
    yield started
    started.end()


def is_signed_by(pem: bytes, root: bytes) -> bool:
    try:
        x509.load_pem_x509_certificate(pem).verify_directly_issued_by(x509.load_pem_x509_certificate(root))
    except (ValueError, InvalidSignature):
        return False
    return True


def test_the_root_changes_under_load_and_no_call_fails(start_consul: StartConsul, fleet: Fleet, tmp_path: Path) -> None:
    agent = start_consul()
    consul = {"MESHLIB_REGISTRY": agent.url, "MESHLIB_IDENTITY": "consul"}
    servers = [fleet.start("reviews", *LEDGER, **consul) for _ in range(2)]
    addresses = [address(server) for server in servers]
    eventually(lambda: len(agent.get("/v1/health/service/reviews?passing")) == 2, 30.0)
    mesh = meshlib.Mesh(agent.url, service="web", identity="consul", state_dir=tmp_path / "caller")
    load = Load(mesh)

    def everybody_has_turned(root: bytes) -> bool:
        material = mesh.identity.material if mesh.identity is not None else None
        assert material is not None
        return all(is_signed_by(pem, root) for pem in (material.certificates, *map(shown, addresses)))

    async def scenario() -> tuple[float, float]:
        async with load.on():
            await load.further(200)
            began = time.monotonic()
            root = await asyncio.to_thread(change_root, agent, "the second root")
            await asyncio.to_thread(eventually, lambda: everybody_has_turned(root), PATIENCE)
            turned = time.monotonic()
            await load.further(300)
        return began, turned

    with mesh, meshlib.Client(mesh=mesh) as client:
        client.get("http://reviews/").raise_for_status()  # the registry hears of the name before the load begins
        began, turned = asyncio.run(scenario())
    extra = sum(record.attempts for record in load.records) - len(load.records)
    print(f"{len(load.records)} calls, {len(load.errors)} failed, {extra} extra; turned in {turned - began:.1f} s")
    assert load.errors == []
    assert extra == 0
    (peer,) = {record.peer for record in load.records}
    assert peer is not None
    assert peer.endswith("/ns/default/dc/dc1/svc/web")


@pytest.mark.parametrize("holder", ["reviews", "ratings"])
def test_who_is_registered_under_a_name_must_hold_the_certificate_of_that_service(
    holder: str, consul: ConsulAgent, tmp_path: Path
) -> None:
    """An agent takes whatever is registered; only its CA, by the rights of a token, tells who is who."""
    name = f"ca-{holder}-reviews"
    held = name if holder == "reviews" else "ca-ratings"
    leaf = consul.get(f"/v1/agent/connect/ca/leaf/{held}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_into(context, leaf["CertPEM"].encode(), leaf["PrivateKeyPEM"].encode())
    endpoint = Endpoint(context)
    with Listener(endpoint) as listener:
        consul.put(
            "/v1/agent/service/register",
            {
                "Name": name,
                "Address": "127.0.0.1",
                "Port": listener.port,
                "Connect": {"Native": True},
                "Meta": {"meshlib-identity": leaf["ServiceURI"]},  # its own word, which doesn't count
            },
        )
        mesh = meshlib.Mesh(consul.url, service="ca-web", identity="consul", state_dir=tmp_path)
        with mesh, meshlib.Client(mesh=mesh) as client:
            if holder == "reviews":
                assert client.get(f"http://{name}/secret").status_code == 200
            else:
                with pytest.raises(meshlib.ConnectFailed, match=rf"/svc/{held}, expected spiffe://\S+/svc/{name}"):
                    client.get(f"http://{name}/secret")
        assert listener.connections >= 1
    assert (b"GET /secret" in b"".join(endpoint.heard)) is (holder == "reviews")
