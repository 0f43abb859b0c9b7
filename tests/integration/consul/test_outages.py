"""Consul's processes die, stop, lose each other and come back, under a steady load over mTLS, and no call fails."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import meshlib
from meshlib.plan.plan import Plan
from tests.integration.workers.fleet import Fleet, Load, failures, load_on
from tests.support import eventually, eventually_async
from tests.support.consul import ConsulAgent, ConsulCluster, StartCluster
from tests.support.cut import Cut
from tests.support.routes import route_named

AGAIN_WITHIN = 15.0
"""Seconds after which registration and configuration must be right again."""

LONGER_THAN_A_LEASE = 15.0
"""Seconds: by Consul's word everybody has expired then."""

BEFORE = 150
AFTER = 300


class World(NamedTuple):
    cluster: ConsulCluster
    agent: ConsulAgent
    cut: Cut
    fleet: Fleet
    mesh: meshlib.Mesh


@pytest.fixture
def world(start_cluster: StartCluster, tmp_path: Path) -> Iterator[World]:
    """Three servers and an agent beside three instances and a caller, whose way to Consul can be cut."""
    cluster = start_cluster(servers=3, clients=1)
    agent = cluster.clients[0]
    with contextlib.ExitStack() as stack:
        cut = stack.enter_context(Cut(agent.address))
        fleet = Fleet(f"consul://{cut.address}?watch=reviews", tmp_path / "state", MESHLIB_IDENTITY="consul")
        stack.callback(fleet.end)
        fleet.start("v1", "v1", "v1")
        mesh = stack.enter_context(fleet.mesh(service="web", identity="consul"))
        yield World(cluster, agent, cut, fleet, mesh)


def agent_killed(world: World) -> None:
    world.agent.kill()
    time.sleep(2)
    world.agent.start()


def follower_killed(world: World) -> None:
    follower = world.cluster.followers()[0]
    follower.kill()
    time.sleep(2)
    follower.start()


def leader_killed(world: World) -> None:
    leader = world.cluster.leader()
    leader.kill()
    world.cluster.leader()
    leader.start()


def all_servers_stopped_for_a_minute(world: World) -> None:
    for server in world.cluster.servers:
        server.pause()
    time.sleep(60)
    for server in world.cluster.servers:
        server.resume()
    world.cluster.wait_until_ready()


def network_cut(world: World) -> None:
    world.cut.refuse()
    time.sleep(LONGER_THAN_A_LEASE)
    world.cut.heal()


def network_silent(world: World) -> None:
    world.cut.silence()
    time.sleep(LONGER_THAN_A_LEASE)
    world.cut.heal()


@pytest.mark.parametrize(
    "outage",
    [agent_killed, follower_killed, leader_killed, all_servers_stopped_for_a_minute, network_cut, network_silent],
)
def test_no_call_fails_and_all_is_right_again_by_itself(world: World, outage: Callable[[World], None]) -> None:
    async def scenario() -> tuple[Load, float]:
        async with load_on(world.mesh, rate=100) as load:
            await load.until_calls(BEFORE)
            await asyncio.to_thread(outage, world)
            healed = time.monotonic()
            await asyncio.to_thread(world.fleet.apply, route_named("after-the-outage"))
            await eventually_async(lambda: is_right(world), AGAIN_WITHIN + 10)
            right = time.monotonic() - healed
            await load.until_calls(AFTER)
        return load, right

    load, right = asyncio.run(scenario())
    failed = failures(load.records)
    print(f"{outage.__name__}: {len(load.records)} calls, {len(failed)} failed, right again after {right:.1f} s")
    assert [(record.status, record.error) for record in failed[:5]] == []
    assert right <= AGAIN_WITHIN


def is_right(world: World) -> bool:
    """Everybody is registered and passing, and the newest document is in force."""
    plan: Plan | None = world.mesh.plan
    host = plan.host("reviews", 80) if plan is not None else None
    names = [route.name for route in host.routes] if host is not None else []
    entries = world.agent.get("/v1/health/service/reviews?passing")
    return (
        len(entries) == len(world.fleet.instances) and "reviews[after-the-outage]" in names and world.mesh.status().ok
    )


def test_a_process_that_starts_while_consul_is_away_serves_with_its_last_good_configuration(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster = start_cluster(servers=1)
    agent = cluster.servers[0]
    fleet = Fleet(agent.url, tmp_path / "state")
    with contextlib.closing(_Ending(fleet)):
        fleet.start("v1", "v1")
        with meshlib.Mesh(fleet.url, state_dir=tmp_path / "caller") as mesh, meshlib.Client(mesh=mesh) as client:
            assert client.get("http://reviews/").text == "v1"
        agent.kill()
        with meshlib.Mesh(fleet.url, state_dir=tmp_path / "caller") as mesh, meshlib.Client(mesh=mesh) as client:
            assert {client.get("http://reviews/").text for _ in range(20)} == {"v1"}
            assert mesh.status().source == "disk"
            agent.start()
            eventually(lambda: mesh.status().source == "registry" and mesh.status().ok, AGAIN_WITHIN)
            assert client.get("http://reviews/").text == "v1"


class _Ending(NamedTuple):
    fleet: Fleet

    def close(self) -> None:
        self.fleet.end()
