"""What Consul has is in force within a second: from its answer to whoever changed something, to the plan."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import meshlib
from tests.support import eventually
from tests.support.consul import ConsulAgent

WITHIN = 1.0
PATIENCE = 10.0
TIMES = 3
"""There and back: more changes in a row than a query asks for at once, so that its pace is in what is measured."""

numbers = itertools.count()


class Scene(NamedTuple):
    """A caller of a service of the test's own, and the service's documents."""

    agent: ConsulAgent
    mesh: meshlib.Mesh
    name: str

    def put(self, number: int, **more: Any) -> None:
        definition = {"Name": self.name, "ID": f"{self.name}-{number}", "Address": "127.0.0.1", "Port": number}
        self.agent.put("/v1/agent/service/register", definition | more)

    def remove(self, number: int) -> None:
        self.agent.put(f"/v1/agent/service/deregister/{self.name}-{number}")

    def write(self, route: str) -> None:
        """A document with one route of this name."""
        spec = {"hosts": [self.name], "http": [{"name": route, "route": [{"destination": {"host": self.name}}]}]}
        metadata = {"name": self.name, "namespace": "default"}
        document = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata}
        self.agent.put(f"/v1/kv/{self._key}", json.dumps({**document, "spec": spec}).encode())

    def unwrite(self) -> None:
        self.agent.delete(f"/v1/kv/{self._key}")

    @property
    def _key(self) -> str:
        return f"{self.name}/default/VirtualService/{self.name}"

    def resolve(self, seconds: int) -> None:
        resolver = {"Kind": "service-resolver", "Name": self.name, "ConnectTimeout": f"{seconds}s"}
        self.agent.put("/v1/config", resolver)

    def unresolve(self) -> None:
        self.agent.delete(f"/v1/config/service-resolver/{self.name}")

    def seen(self) -> tuple[list[tuple[str, int, bool]], list[str], float]:
        """Address, weight and health of each endpoint; the routes; the connect timeout, in seconds."""
        explained = self.mesh.explain("GET", f"http://{self.name}/")
        (cluster,) = explained.clusters
        endpoints = [(one.address.rpartition(":")[2], one.weight, not one.excluded) for one in cluster.endpoints]
        plan = self.mesh.plan
        assert plan is not None
        limits = plan.clusters[cluster.name].limits
        return sorted(endpoints), [candidate.route for candidate in explained.candidates], limits.connect_timeout

    def routed(self, route: str) -> bool:
        """Whether the one route is that of `write`."""
        return self.seen()[1] == [f"{self.name}[{route}]"]


class Change(NamedTuple):
    """Something that is done and undone, and what of a scene shows it."""

    do: Callable[[Scene], object]
    undo: Callable[[Scene], object]
    shows: Callable[[Scene], bool]


def checked(status: str) -> Callable[[Scene], object]:
    return lambda scene: scene.agent.put(f"/v1/agent/check/{status}/{scene.name}-check")


CHANGES = {
    "an instance": Change(
        lambda scene: scene.put(2),
        lambda scene: scene.remove(2),
        lambda scene: [one[0] for one in scene.seen()[0]] == ["1", "2"],
    ),
    "a weight": Change(
        lambda scene: scene.put(3, Weights={"Passing": 7, "Warning": 1}),
        lambda scene: scene.put(3),
        lambda scene: ("3", 7, True) in scene.seen()[0],
    ),
    "a health": Change(
        checked("fail"),
        checked("pass"),
        lambda scene: ("4", 1, False) in scene.seen()[0],
    ),
    "a document": Change(
        lambda scene: scene.write("written"),
        Scene.unwrite,
        lambda scene: scene.routed("written"),
    ),
    "a word in a document": Change(
        lambda scene: scene.write("this"),
        lambda scene: scene.write("that"),
        lambda scene: scene.routed("this"),
    ),
    "a config entry": Change(
        lambda scene: scene.resolve(3),
        Scene.unresolve,
        lambda scene: scene.seen()[2] == 3.0,
    ),
}


@pytest.fixture
def scene(consul: ConsulAgent, tmp_path: Path) -> Iterator[Scene]:
    name = f"changing-{next(numbers)}"
    with meshlib.Mesh(f"{consul.url}?prefix={name}", state_dir=tmp_path) as mesh:
        found = Scene(consul, mesh, name)
        check = {"CheckID": f"{name}-check", "TTL": "10m", "Status": "passing"}
        found.put(4, Check=check)
        eventually(lambda: found.seen()[0] == [("4", 1, True)], PATIENCE)
        yield found
        found.unwrite()
        found.unresolve()
        for number in range(1, 5):
            consul.request("PUT", f"/v1/agent/service/deregister/{name}-{number}")


def lag(change: Callable[[Scene], object], scene: Scene, shows: Callable[[], object]) -> float:
    """Seconds from the answer to a change until it is in force."""
    change(scene)
    answered = time.monotonic()
    eventually(shows, PATIENCE)
    return time.monotonic() - answered


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_in_force_within_a_second(change: Change, scene: Scene) -> None:
    if change is CHANGES["an instance"]:
        scene.put(1)
        scene.remove(4)
    lags: list[float] = []
    for _ in range(TIMES):
        lags.append(lag(change.do, scene, lambda: change.shows(scene)))
        lags.append(lag(change.undo, scene, lambda: not change.shows(scene)))
    print(" ".join(f"{found * 1000:.0f}" for found in lags), "ms")
    # The machine may stand still once; twice is ours.
    assert sorted(lags)[-2] <= WITHIN


def test_of_many_changes_at_once_the_last_is_in_force_within_a_second(scene: Scene) -> None:
    def burst() -> float:
        for weight in range(20, 40):
            scene.put(3, Weights={"Passing": weight, "Warning": 1})
            scene.write(f"route-{weight}")
        answered = time.monotonic()
        eventually(lambda: ("3", 39, True) in scene.seen()[0] and scene.routed("route-39"), PATIENCE)
        return time.monotonic() - answered

    lags = []
    for _ in range(3):
        scene.put(3)
        scene.write("before")
        eventually(lambda: ("3", 1, True) in scene.seen()[0] and scene.routed("before"), PATIENCE)
        lags.append(burst())
    print(" ".join(f"{found * 1000:.0f}" for found in lags), "ms")
    assert sorted(lags)[-2] <= WITHIN
