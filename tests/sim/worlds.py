"""Small fleets for the simulations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from meshlib.plan.snapshot import Snapshot
from meshlib.registries.base import Instance
from meshlib.resources import Source, load
from meshlib.testing.scripted import ScriptedEndpoint
from meshlib.testing.simulation import Request, Simulation

REVIEWS = Request("reviews")
HOST = "reviews.default.svc.cluster.local"


def document(kind: str, **spec: object) -> Source:
    """One document; its kind says its API version, and its name doesn't matter."""
    version = "meshlib/v1" if kind == "OutboundPolicy" else "networking.istio.io/v1"
    text = json.dumps({"apiVersion": version, "kind": kind, "metadata": {"name": "one"}, "spec": spec})
    return Source(kind, text.encode())


def balanced(balancer: str) -> Source:
    return document("OutboundPolicy", host="reviews", loadBalancer=balancer)


def snapshot(instances: Sequence[Instance], documents: Sequence[Source] = (), *, version: str = "1") -> Snapshot:
    loaded = load(documents)
    assert not loaded.problems, loaded.problems
    return Snapshot(tuple(instances), tuple(loaded.resources), version)


def instances(count: int, labels: Mapping[str, str] | None = None, first: int = 1) -> list[Instance]:
    """Instances of reviews at 10.0.0.1:80, 10.0.0.2:80, …"""
    return [Instance("reviews", f"10.0.0.{number}", 80, labels=labels or {}) for number in range(first, first + count)]


def fleet(endpoints: Sequence[ScriptedEndpoint], documents: Sequence[Source] = (), *, seed: int = 1) -> Simulation:
    """A simulation of one service, reviews, behind the given endpoints."""
    at = {f"10.0.0.{number}:80": endpoint for number, endpoint in enumerate(endpoints, 1)}
    return Simulation(snapshot(instances(len(endpoints)), documents), at, seed=seed)


def attempts(simulation: Simulation) -> int:
    return sum(len(finished.call.attempts) for finished in simulation.finished)


def assert_at_rest(simulation: Simulation) -> None:
    """Nothing is in flight, on any endpoint or in any limit."""
    assert not simulation.running
    for cluster in simulation.plan.clusters.values():
        assert [state.active for state in cluster.endpoints] == [0] * len(cluster.endpoints)
        assert (cluster.state.requests.inside, cluster.state.retries.inside) == (0, 0)
