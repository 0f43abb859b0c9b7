"""Rubbish from Consul under calls: they go on, the status says what is wrong, nobody hurries, and it heals."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import meshlib
from meshlib.registries.consul import client
from tests.integration.workers.fleet import Fleet, failures, load_on
from tests.support import eventually, eventually_async
from tests.support.consul import ConsulAgent
from tests.support.cut import Change, Cut, deep, half_json, html, huge, index, null, server_error, truncated
from tests.support.routes import route_named

PATIENCE = 20.0
RATE = 100.0
LASTS = 1.2

MOST_ASKED = 7 * 6
"""Requests in that time: 7 questions, each after 0.1 s, 0.2 s, 0.4 s and so on, of which chance may take away half."""

numbers = itertools.count()


class World(NamedTuple):
    """A real instance and its caller, who hears from Consul through `cut`."""

    cut: Cut
    fleet: Fleet
    mesh: meshlib.Mesh

    def routes(self) -> list[str]:
        plan = self.mesh.plan
        host = plan.host("reviews", 80) if plan is not None else None
        return [route.name for route in host.routes] if host is not None else []


@pytest.fixture
def world(start_consul: Callable[[], ConsulAgent], tmp_path: Path) -> Iterator[World]:
    agent = start_consul()
    with contextlib.ExitStack() as stack:
        fleet = Fleet(agent.url, tmp_path / "state")
        stack.callback(fleet.end)
        fleet.start("v1")
        cut = stack.enter_context(Cut(agent.address))
        mesh = stack.enter_context(meshlib.Mesh(f"consul://{cut.address}", state_dir=tmp_path / "caller"))
        fleet.apply(route_named("before"))
        eventually(lambda: mesh.explain("GET", "http://reviews/").candidates[0].route == "reviews[before]", PATIENCE)
        yield World(cut, fleet, mesh)


RUBBISH: dict[str, tuple[Change, str]] = {
    "truncated": (truncated, "can't be reached"),
    "half of the JSON": (half_json, "can't be read"),
    "HTML": (html, "can't be read"),
    "500": (server_error, "No cluster leader"),
    "null": (null, "can't be read"),
    "nested without end": (deep, "can't be read"),
    "an index of 0": (index(0), "has no index"),
    "more than is taken": (huge(3_000_000), "has more than 1000000 bytes"),
}


def test_calls_go_on_through_all_kinds_of_rubbish(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 1_000_000)

    async def scenario() -> None:
        async with load_on(world.mesh, RATE) as load:
            for name, (change, says) in RUBBISH.items():
                await endure(world, name, change, says)
            # It is all heard of again, by itself.
            await asyncio.to_thread(world.fleet.apply, route_named("after"))
            await eventually_async(lambda: world.routes() == ["reviews[after]"], PATIENCE)
            await load.until_calls(20)
        assert [(record.status, record.error) for record in failures(load.records)[:5]] == []

    asyncio.run(scenario())


async def endure(world: World, name: str, change: Change, says: str) -> None:
    """Have every answer changed for a while, and then none."""
    asked, began = world.cut.answered, time.monotonic()
    await asyncio.to_thread(world.cut.garble, change)
    await eventually_async(lambda: says in world.mesh.status().error, PATIENCE)
    await asyncio.sleep(max(0.0, began + LASTS - time.monotonic()))
    status = world.mesh.status()
    lasted, more = time.monotonic() - began, world.cut.answered - asked
    print(f"{name}: {more} requests in {lasted:.1f} s; {status.error}")
    assert more <= MOST_ASKED * lasted / LASTS, name
    assert status.endpoints == 1
    assert world.routes() == ["reviews[before]"]
    assert not status.ok
    await asyncio.to_thread(world.cut.heal)
    await eventually_async(lambda: world.mesh.status().ok, PATIENCE)


def test_calls_go_on_while_answers_trickle(world: World) -> None:
    async def scenario() -> None:
        async with load_on(world.mesh, RATE) as load:
            await asyncio.to_thread(world.cut.slow, 0.05, 1)
            await asyncio.to_thread(world.fleet.apply, route_named("meanwhile"))
            await load.until_calls(int(RATE * LASTS))
            assert world.routes() == ["reviews[before]"]  # a head of 200 bytes takes 10 s
            assert world.mesh.status().endpoints == 1
            await asyncio.to_thread(world.cut.heal)
            await eventually_async(lambda: world.routes() == ["reviews[meanwhile]"], PATIENCE)
        assert [(record.status, record.error) for record in failures(load.records)[:5]] == []

    asyncio.run(scenario())
