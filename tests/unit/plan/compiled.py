"""Plans compiled from a few lines of YAML."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from meshlib.plan.cluster import Cluster
from meshlib.plan.compile import compile_plan
from meshlib.plan.plan import Plan
from meshlib.plan.route import RoutePlan
from meshlib.plan.snapshot import Snapshot
from meshlib.policy.match import HeadView
from meshlib.registries.base import Instance
from meshlib.resources import Intentions, Source, load
from meshlib.state.store import StateStore

HOST = "reviews.default.svc.cluster.local"

KINDS = {
    "OutboundPolicy": "meshlib/v1",
    "InboundPolicy": "meshlib/v1",
    "PeerAuthentication": "security.istio.io/v1",
    "RequestAuthentication": "security.istio.io/v1",
    "AuthorizationPolicy": "security.istio.io/v1",
}


def doc(kind: str, spec: str, *, name: str = "it", namespace: str = "default") -> str:
    version = KINDS.get(kind, "networking.istio.io/v1")
    head = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n"
    return head + textwrap.indent(textwrap.dedent(spec), "  ")


def reviews(number: int, version: str = "v1", **more: object) -> Instance:
    more = {"port": 80, "labels": {"version": version}, **more}
    return Instance("reviews", f"10.0.0.{number}", **more)  # type: ignore[arg-type]


def compiled(
    *documents: str,
    instances: Sequence[Instance] = (),
    namespace: str = "default",
    store: StateStore | None = None,
    now: float = 0.0,
    allow_any: bool = True,
    asked: Iterable[str] | None = None,
    intentions: Intentions | None = None,
    identity: bool = False,
    service: str | None = None,
    labels: Mapping[str, str] = {},
    elsewhere: bool = False,
) -> Plan:
    sources = [Source(f"{number}.yaml", text.encode()) for number, text in enumerate(documents)]
    loaded = load(sources, elsewhere=lambda _host: elsewhere)
    assert not loaded.problems, [str(problem) for problem in loaded.problems]
    known = None if asked is None else frozenset(asked)
    snapshot = Snapshot(tuple(instances), tuple(loaded.resources), "7", known, intentions)
    return compile_plan(
        snapshot,
        namespace,
        StateStore() if store is None else store,
        now,
        lambda: 0.5,
        allow_any=allow_any,
        identity=identity,
        service=service,
        labels=labels,
    )


def head(path: str = "/", *, method: str = "GET", host: str = "reviews", headers: Mapping[str, str] = {}) -> HeadView:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return HeadView(method, path.encode(), host, raw)


def routed(plan: Plan, path: str = "/", *, port: int = 80, host: str = "reviews", **more: object) -> RoutePlan:
    virtual = plan.host(host, port)
    assert virtual is not None, f"{host} is not known"
    found = virtual.route(head(path, host=host, **more))  # type: ignore[arg-type]
    assert found is not None, f"no route for {path}"
    return found


def only(plan: Plan, path: str = "/", **more: object) -> Cluster:
    """The one cluster a request goes to."""
    (cluster,) = routed(plan, path, **more).split.clusters  # type: ignore[arg-type]
    return cluster


def addresses(cluster: Cluster) -> list[str]:
    return [state.address for state in cluster.endpoints]
