"""Consul as a registry, on real agents, and on what stands between us and them."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from meshlib.agent.leases import Registration
from meshlib.errors import RegistryError
from meshlib.registries.base import Instance, Update
from meshlib.registries.consul import client
from meshlib.registries.consul.address import consul_settings
from meshlib.registries.consul.client import Answer, ConsulClient
from meshlib.registries.consul.entries import native_path
from meshlib.registries.consul.registry import ConsulRegistry
from tests.contract.documents import entry
from tests.support import eventually_async
from tests.support.consul import ConsulAgent, StartCluster, StartConsul
from tests.support.cut import (
    Change,
    Cut,
    bomb,
    deep,
    half_json,
    html,
    huge,
    index,
    no_index,
    null,
    server_error,
    truncated,
)

pytestmark = pytest.mark.anyio

PATIENCE = 15.0
SOON = 1.0

numbers = itertools.count()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Follower:
    """A watch in the background: everything it said, and the newest snapshot."""

    def __init__(self, registry: ConsulRegistry) -> None:
        self.registry = registry
        self.said: list[Update | RegistryError] = []
        self._changed = asyncio.Event()

    @property
    def updates(self) -> list[Update]:
        return [item for item in self.said if isinstance(item, Update)]

    async def run(self) -> None:
        async for item in self.registry.watch():
            self.said.append(item)
            self._changed.set()

    async def until(
        self, wanted: Callable[[Update], object], timeout: float = PATIENCE, *, error: bool = False
    ) -> Update:
        """The newest update, once it is as wanted; with `error`, once an error is the last that was said."""
        async with asyncio.timeout(timeout):
            while True:
                updates = self.updates
                if updates and wanted(updates[-1]) and (isinstance(self.said[-1], RegistryError) or not error):
                    return updates[-1]
                self._changed.clear()
                await self._changed.wait()


def anything(_update: Update) -> bool:
    return True


@asynccontextmanager
async def following(url: str, *hosts: str, kind: type[ConsulClient] = ConsulClient) -> AsyncIterator[Follower]:
    registry = ConsulRegistry(kind(consul_settings(url, {})))
    follower = Follower(registry)
    await registry.want([f"{host}.default.svc.cluster.local" for host in hosts])
    task = asyncio.ensure_future(follower.run())
    try:
        await follower.until(anything)
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await registry.aclose()


def register(agent: ConsulAgent, name: str, number: int = 1, **more: object) -> None:
    definition = {"Name": name, "ID": f"{name}-{number}", "Address": "127.0.0.1", "Port": number}
    agent.put("/v1/agent/service/register", definition | more)


def ports(update: Update, service: str) -> list[int]:
    return [instance.port for instance in update.instances if instance.service == service]


async def test_a_service_somebody_else_registered_is_found_and_its_checks_count(consul: ConsulAgent) -> None:
    check = {"CheckID": "other", "TTL": "60s", "Status": "passing"}
    register(consul, "checked", Check=check, Meta={"version": "v3"}, Weights={"Passing": 5, "Warning": 2})
    async with following(consul.url, "checked") as follower:
        (found,) = (await follower.until(lambda update: update.instances)).instances
        assert (found.host, found.port, found.weight, found.healthy) == ("127.0.0.1", 1, 5, True)
        assert found.labels == {"version": "v3"}
        consul.put("/v1/agent/check/warn/other")
        await follower.until(lambda update: [one.weight for one in update.instances] == [2], SOON)
        consul.put("/v1/agent/check/fail/other")
        await follower.until(lambda update: [one.healthy for one in update.instances] == [False], SOON)


async def test_what_agents_deregistered_comes_back_with_the_next_renewal(consul: ConsulAgent) -> None:
    async with following(consul.url, "lost") as follower:
        lease = await follower.registry.register(Instance("lost", "127.0.0.1", 1, id="x"))
        consul.put("/v1/agent/service/deregister/lost-x")
        await follower.until(lambda update: not update.instances, SOON)
        await lease.renew()
        await follower.until(lambda update: ports(update, "lost") == [1], SOON)


async def test_a_registration_with_an_http_check_is_put_back_too(consul: ConsulAgent) -> None:
    async with following(f"{consul.url}?check=http:/health", "polled") as follower:
        lease = await follower.registry.register(Instance("polled", "127.0.0.1", 1, id="x"))
        (check,) = (check for check in consul.get("/v1/agent/checks").values() if check["ServiceID"] == "polled-x")
        assert check["Type"] == "http"
        await lease.set_healthy(False)
        await follower.until(lambda update: [one.healthy for one in update.instances] == [False], SOON)
        consul.put("/v1/agent/service/deregister/polled-x")
        await lease.renew()
        assert "polled-x" in consul.get("/v1/agent/services")


class Counting(ConsulClient):
    """Knows which blocking queries it was asked."""

    held: set[str]

    async def get(
        self,
        path: str,
        params: object = (),
        *,
        index: int | None = None,
        wait: float | None = None,
        missing_ok: bool = False,
    ) -> Answer:
        if index is not None:
            self.__dict__.setdefault("held", set()).add(path)
        return await super().get(path, params, index=index, wait=wait, missing_ok=missing_ok)  # type: ignore[arg-type]


async def test_only_services_that_are_called_are_watched(consul: ConsulAgent) -> None:
    names = [f"many-{number}" for number in range(12)]
    for name in names:
        register(consul, name)
    async with following(consul.url, *names[:3], kind=Counting) as follower:
        await follower.until(lambda update: len(update.asked or ()) == 3)
        register(consul, names[0], 2)
        await follower.until(lambda update: ports(update, names[0]) == [1, 2], SOON)
        held = follower.registry.client.held  # type: ignore[attr-defined]
        watched = {path for path in held if path.startswith("/v1/health/")}
        assert watched <= {f"/v1/health/service/{name}" for name in names[:3]}
        assert len(held - watched) <= 8


async def test_a_name_nobody_registered_is_asked_and_has_nobody(consul: ConsulAgent) -> None:
    async with following(consul.url) as follower:
        assert (await follower.until(anything)).asked == frozenset()
        await follower.registry.want(["nobody.default.svc.cluster.local", "not a service"])
        update = await follower.until(lambda update: update.asked, SOON)
        assert update.asked == {"nobody.default.svc.cluster.local", "not a service"}
        assert update.instances == ()


async def test_a_subset_has_the_instances_that_consul_finds_by_its_filter(consul: ConsulAgent) -> None:
    for number, version in enumerate(("v1", "v2"), 1):
        register(consul, "subsets", number, Meta={"version": version})
    async with following(consul.url, "subsets") as follower:
        await follower.until(lambda update: ports(update, "subsets") == [1, 2])
        resolver = {
            "Kind": "service-resolver",
            "Name": "subsets",
            "DefaultSubset": "old",
            "Subsets": {"old": {"Filter": 'Service.Meta.version == "v1"'}},
        }
        consul.put("/v1/config", resolver)
        try:
            update = await follower.until(lambda update: update.sources, SOON)
            assert {source.origin for source in update.sources} == {"consul discovery-chain subsets"}
            wearing = {one.port for one in update.instances if one.labels.get("consul-subset/old") == "true"}
            assert wearing == {1}
            register(consul, "subsets", 3, Meta={"version": "v1"})
            update = await follower.until(lambda update: ports(update, "subsets") == [1, 2, 3], SOON)
            await follower.until(lambda update: update.instances[2].labels.get("consul-subset/old"), SOON)
        finally:
            consul.delete("/v1/config/service-resolver/subsets")
        update = await follower.until(lambda update: not update.sources, SOON)
        assert not any("consul-subset/old" in one.labels for one in update.instances)


async def test_the_identity_of_a_native_service_is_derived_and_not_what_it_says(consul: ConsulAgent) -> None:
    domain = consul.get("/v1/agent/connect/ca/roots")["TrustDomain"]
    forged = {"meshlib-identity": "spiffe://evil.example/admin"}
    register(consul, "native", 1, Connect={"Native": True}, Meta=forged)
    register(consul, "native", 2, Meta={"meshlib-identity": "spiffe://example.org/native"})
    async with following(consul.url, "native") as follower:
        update = await follower.until(lambda update: len(update.instances) == 2)
        derived = f"spiffe://{domain}{native_path('native', 'dc1')}"
        assert [one.identity for one in update.instances] == [derived, "spiffe://example.org/native"]


async def test_an_instance_with_an_identity_of_this_consul_is_registered_as_native(consul: ConsulAgent) -> None:
    domain = consul.get("/v1/agent/connect/ca/roots")["TrustDomain"]
    identity = f"spiffe://{domain}{native_path('nativeself', 'dc1')}"
    async with following(consul.url, "nativeself") as follower:
        await follower.registry.register(Instance("nativeself", "127.0.0.1", 1, identity=identity))
        update = await follower.until(lambda update: update.instances)
        assert update.instances[0].identity == identity
    (found,) = consul.get("/v1/catalog/service/nativeself")
    assert found["ServiceConnect"] == {"Native": True}
    assert not found["ServiceMeta"]


async def test_intentions_of_the_registered_service_are_in_force_within_a_second(consul: ConsulAgent) -> None:
    async with following(consul.url) as follower:
        assert (await follower.until(anything)).intentions is None
        await follower.registry.register(Instance("guarded", "127.0.0.1", 1))
        update = await follower.until(lambda update: update.intentions is not None)
        assert update.intentions is not None
        assert (update.intentions.rules, update.intentions.default_allow) == ((), True)
        made = consul.request(
            "POST", "/v1/connect/intentions", {"SourceName": "rogue", "DestinationName": "guarded", "Action": "deny"}
        )
        try:
            update = await follower.until(lambda update: update.intentions and update.intentions.rules, SOON)
            assert update.intentions is not None
            assert [(rule.source, rule.action) for rule in update.intentions.rules] == [("rogue", "deny")]
        finally:
            consul.delete(f"/v1/connect/intentions/{made.json()['ID']}")


async def test_after_the_agent_was_killed_all_is_right_again_by_itself(start_consul: StartConsul) -> None:
    agent = start_consul()
    register(agent, "other")
    async with following(agent.url, "other", "self") as follower:
        await follower.registry.apply([entry("kept")])
        registration = Registration(follower.registry, Instance("self", "127.0.0.1", 7))

        def whole(update: Update) -> bool:
            there = ports(update, "other") == [1] and ports(update, "self") == [7]
            return there and len(update.sources) == 1 and update.intentions is not None

        before = await follower.until(whole)
        agent.kill()
        await follower.until(whole, error=True)
        seen = len(follower.said)
        await asyncio.to_thread(agent.start)
        await follower.until(lambda update: update.version == before.version and update is not before)
        # An agent that comes back may still be empty, and that must not be taken for the truth.
        documents = [len(item.sources) for item in follower.said[seen:] if isinstance(item, Update)]
        assert set(documents) == {1}
        await registration.withdraw()


async def test_an_agent_that_forgot_everything_is_told_again(start_consul: StartConsul) -> None:
    agent = start_consul()
    async with following(agent.url, "self") as follower:
        registration = Registration(follower.registry, Instance("self", "127.0.0.1", 7))
        await follower.until(lambda update: ports(update, "self") == [7])
        agent.put("/v1/agent/service/deregister/" + next(iter(agent.get("/v1/agent/services"))))
        await follower.until(lambda update: not update.instances, SOON)
        await follower.until(lambda update: ports(update, "self") == [7])
        await registration.withdraw()


RUBBISH = {
    "truncated": truncated,
    "half of the JSON": half_json,
    "HTML": html,
    "500": server_error,
    "null": null,
    "nested without end": deep,
    "an index of 0": index(0),
    "an index of 1": index(1),
    "no index": no_index,
    "more than is taken": huge(2_000_000),
    "more than is taken, packed": bomb(2_000_000),
}


@pytest.mark.parametrize("change", RUBBISH.values(), ids=RUBBISH.keys())
async def test_rubbish_empties_nothing(consul: ConsulAgent, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 1_000_000)
    name = f"rubbish-{next(numbers)}"
    register(consul, name)
    with Cut(consul.address) as cut:
        async with following(f"consul://{cut.address}?prefix={name}", name) as follower:
            await follower.registry.apply([entry("kept")])
            await follower.until(lambda update: len(update.sources) == 1 and update.instances)
            seen = len(follower.said)
            cut.garble(change)
            await eventually_async(lambda: cut.answered >= 12, PATIENCE)
            cut.heal()
            register(consul, name, 2)
            await follower.until(lambda update: ports(update, name) == [1, 2])
            later = [item for item in follower.said[seen:] if isinstance(item, Update)]
            assert {len(update.sources) for update in later} == {1}
            assert all(ports(update, name) in ([1], [1, 2]) for update in later)


async def test_what_a_token_may_not_do_is_said_with_the_rule_that_is_missing(start_consul: StartConsul) -> None:
    agent = start_consul(acl=True)
    token = agent.new_token('service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }')
    registry = ConsulRegistry(ConsulClient(consul_settings(agent.url, {}, token=token)))
    try:
        with pytest.raises(RegistryError) as caught:
            await registry.register(Instance("web", "127.0.0.1", 1))
        assert caught.value.way_out == 'the ACL token needs service "web" { policy = "write" }'
        with pytest.raises(RegistryError) as caught:
            await registry.apply([entry("one")])
        assert caught.value.way_out == 'the ACL token needs key_prefix "meshlib/" { policy = "write" }'
    finally:
        await registry.aclose()


async def test_a_token_that_is_unknown_is_called_so(start_consul: StartConsul) -> None:
    agent = start_consul(acl=True)
    registry = ConsulRegistry(ConsulClient(consul_settings(agent.url, {"CONSUL_HTTP_TOKEN": "x" * 36})))
    try:
        with pytest.raises(RegistryError, match="doesn't know this ACL token"):
            await registry.snapshot()
    finally:
        await registry.aclose()


async def test_a_token_that_is_taken_away_empties_nothing(start_consul: StartConsul) -> None:
    agent = start_consul(acl=True)
    register(agent, "secret")
    rules = (
        'service_prefix "" { policy = "write" } node_prefix "" { policy = "read" } key_prefix "" { policy = "write" }'
    )
    token = agent.new_token(rules)
    registry = ConsulRegistry(ConsulClient(consul_settings(agent.url, {"CONSUL_HTTP_TOKEN": token})))
    follower = Follower(registry)
    await registry.want(["secret.default.svc.cluster.local"])
    task = asyncio.ensure_future(follower.run())
    await registry.apply([entry("kept")])

    def whole(update: Update) -> bool:
        return ports(update, "secret") == [1] and len(update.sources) == 1

    await follower.until(whole)
    known = agent.request("GET", "/v1/acl/token/self", token=token).json()
    agent.delete(f"/v1/acl/token/{known['AccessorID']}")
    register(agent, "secret", 2)
    update = await follower.until(whole, error=True)
    assert update.asked == {"secret.default.svc.cluster.local"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await registry.aclose()


async def test_services_of_another_datacenter_are_found_by_their_name_in_consuls_dns(
    start_cluster: StartCluster,
) -> None:
    here = start_cluster(servers=1)
    there = start_cluster(servers=1, datacenter="dc2", join_wan=[here])
    register(there.servers[0], "far")
    async with following(here.servers[0].url) as follower:
        await follower.registry.want(["far.service.dc2.consul"])
        update = await follower.until(lambda update: update.instances, 30.0)
        assert [(one.service, one.datacenter, one.port) for one in update.instances] == [("far", "dc2", 1)]
        assert update.asked == {"far.service.dc2.consul"}


async def test_consul_is_reached_by_its_unix_socket(start_consul: StartConsul) -> None:
    with tempfile.TemporaryDirectory() as folder:  # the path of a socket has at most 107 bytes
        agent = start_consul(config={"addresses": {"http": f"127.0.0.1 unix://{folder}/c.sock"}})
        register(agent, "beside")
        async with following(f"consul://{folder}/c.sock", "beside") as follower:
            await follower.until(lambda update: ports(update, "beside") == [1])


async def test_consul_is_reached_by_tls_with_a_client_certificate_and_a_token_in_a_file(
    start_consul: StartConsul, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("server.dc1.consul").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    files = {name: str(tmp_path / "server.pem") for name in ("cert_file", "key_file")}
    demands = {"ca_file": str(tmp_path / "ca.pem"), "verify_incoming_https": True}
    agent = start_consul(acl=True, config=files | demands)
    register(agent, "beside")
    (tmp_path / "token").write_text("not-a-token")
    url = f"consul://127.0.0.1:{agent.ports.https}?scheme=https&token_file={tmp_path}/token&ca_file={tmp_path}/ca.pem"
    stranger = ConsulClient(consul_settings(f"{url}&server_name=server.dc1.consul", {}))
    with pytest.raises(RegistryError, match="can't be reached"):
        await stranger.get("/v1/catalog/services")
    await stranger.aclose()
    named = f"{url}&cert_file={tmp_path}/client.pem&server_name="
    wrong = ConsulClient(consul_settings(f"{named}other.example", {}))
    with pytest.raises(RegistryError, match="can't be reached"):
        await wrong.get("/v1/catalog/services")
    await wrong.aclose()
    registry = ConsulRegistry(ConsulClient(consul_settings(f"{named}server.dc1.consul", {})))
    try:
        with pytest.raises(RegistryError, match="doesn't know this ACL token"):
            await registry.client.get("/v1/catalog/services")
        (tmp_path / "token").write_text(f"{agent.token}\n")
        assert ports(await registry.snapshot(), "beside") == [1]
    finally:
        await registry.aclose()


async def test_tls_and_plain_text_at_the_wrong_port_are_told_from_an_agent_that_is_away(
    start_consul: StartConsul, tmp_path: Path
) -> None:
    trustme.CA().issue_cert("server.dc1.consul").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    agent = start_consul(config={name: str(tmp_path / "server.pem") for name in ("cert_file", "key_file")})
    for url, way_out in (
        (f"consul://{agent.address}?scheme=https", "that port doesn't speak TLS"),
        (f"consul://127.0.0.1:{agent.ports.https}", "set scheme=https"),
    ):
        client = ConsulClient(consul_settings(url, {}))
        with pytest.raises(RegistryError) as caught:
            await client.get("/v1/catalog/services")
        assert way_out in caught.value.way_out
        await client.aclose()


async def test_a_network_that_was_cut_and_heals_is_no_loss(consul: ConsulAgent) -> None:
    name = f"cut-{next(numbers)}"
    register(consul, name)
    with Cut(consul.address) as cut:
        async with following(f"consul://{cut.address}?prefix={name}", name) as follower:
            await follower.until(lambda update: ports(update, name) == [1])
            cut.refuse()
            await follower.until(lambda update: ports(update, name) == [1], error=True)
            register(consul, name, 2)
            cut.heal()
            await follower.until(lambda update: ports(update, name) == [1, 2])
            cut.silence()
            register(consul, name, 3)
            cut.heal()
            await follower.until(lambda update: ports(update, name) == [1, 2, 3])


async def test_servers_that_end_and_come_back_empty_nothing(start_cluster: StartCluster) -> None:
    cluster = start_cluster(servers=3, clients=1)
    agent = cluster.clients[0]
    register(agent, "other")
    async with following(agent.url, "other") as follower:
        await follower.registry.apply([entry("kept")])
        await follower.until(lambda update: ports(update, "other") == [1] and len(update.sources) == 1)
        whole = len(follower.said)
        await asyncio.to_thread(cluster.leader().kill)
        await asyncio.to_thread(cluster.leader)
        await asyncio.to_thread(register, agent, "other", 2)
        await follower.until(lambda update: ports(update, "other") == [1, 2])
        for server in cluster.servers:
            if server.running:
                await asyncio.to_thread(server.kill)
        await follower.until(anything, error=True)
        await asyncio.to_thread(cluster.start)
        await asyncio.to_thread(register, agent, "other", 3)
        await follower.until(lambda update: ports(update, "other") == [1, 2, 3])
        later = [item for item in follower.said[whole:] if isinstance(item, Update)]
        assert {len(update.sources) for update in later} == {1}
        assert all(ports(update, "other")[:1] == [1] for update in later)


async def test_a_token_with_the_rules_of_the_how_to_is_enough(start_consul: StartConsul) -> None:
    agent = start_consul(acl=True)
    register(agent, "reviews")
    agent.put("/v1/kv/meshlib/default/ServiceEntry/kept", b"{}")
    rules = ('service "web" { policy = "write" }', 'service "reviews" { policy = "read" }')
    rules += ('node_prefix "" { policy = "read" }', 'key_prefix "meshlib/" { policy = "read" }')
    token = agent.new_token("\n".join(rules))
    registry = ConsulRegistry(ConsulClient(consul_settings(agent.url, {}, token=token)))
    await registry.want(["reviews.default.svc.cluster.local"])
    follower = Follower(registry)
    task = asyncio.ensure_future(follower.run())
    try:
        lease = await registry.register(Instance("web", "127.0.0.1", 8))
        update = await follower.until(lambda update: update.intentions is not None)
        assert ports(update, "reviews") == [1]
        assert len(update.sources) == 1
        assert update.intentions is not None
        assert not update.intentions.default_allow  # the ACLs' default is to deny
        agent.put("/v1/config", {"Kind": "service-defaults", "Name": "reviews", "Protocol": "http"})
        denied = {"SourceName": "rogue", "DestinationName": "web", "Action": "deny"}
        assert agent.request("POST", "/v1/connect/intentions", denied).status == 200
        await follower.until(lambda update: update.intentions and update.intentions.rules, SOON)
        agent.put("/v1/config", {"Kind": "service-resolver", "Name": "reviews", "ConnectTimeout": "1s"})
        await follower.until(lambda update: len(update.sources) == 2, SOON)
        await lease.renew()
        await lease.withdraw()
        assert not [item for item in follower.said if isinstance(item, RegistryError)]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await registry.aclose()


async def test_a_name_that_stays_without_instances_is_forgotten_unless_it_is_wanted_again(consul: ConsulAgent) -> None:
    now = 0.0
    register(consul, "remembered")
    registry = ConsulRegistry(ConsulClient(consul_settings(consul.url, {})), clock=lambda: now)
    there, nobody, again, new = (f"{name}.default.svc.cluster.local" for name in ("remembered", "none", "again", "new"))
    await registry.want([there, nobody, again])
    follower = Follower(registry)
    task = asyncio.ensure_future(follower.run())
    try:
        await follower.until(lambda update: update.asked == {there, nobody, again})
        now = 61.0
        await registry.want([again, new])
        await follower.until(lambda update: update.asked == {there, again, new}, SOON)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await registry.aclose()
