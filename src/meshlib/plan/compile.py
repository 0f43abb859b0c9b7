"""Compiling a snapshot into a plan: once per change of configuration, so that a call has nothing left to work out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from meshlib.plan.clusters import Clusters
from meshlib.plan.hosts import hosts_of
from meshlib.plan.inbound import Inbound, inbound_of
from meshlib.plan.plan import Plan
from meshlib.plan.route import VirtualHost
from meshlib.plan.routes import Routes, Rules
from meshlib.plan.snapshot import Snapshot
from meshlib.policy.strategy import RetryStrategy
from meshlib.resources import OutboundPolicySpec, Resource, VirtualServiceSpec, aliases, fqdn
from meshlib.resources.names import service_name
from meshlib.state.store import StateStore

__all__ = ["compile_plan"]

Random = Callable[[], float]
NO_LABELS: Mapping[str, str] = {}
_HOME = ".default.svc.cluster.local"


def compile_plan(
    snapshot: Snapshot,
    namespace: str,
    store: StateStore,
    now: float,
    random: Random,
    *,
    allow_any: bool = True,
    strategy: RetryStrategy | None = None,
    identity: bool = False,
    service: str | None = None,
    labels: Mapping[str, str] = NO_LABELS,
    caller: str = "",
) -> Plan:
    """The plan by which callers in `namespace` live.

    Args:
        snapshot: the validated configuration.
        namespace: of the caller: which short names mean what.
        store: the states of endpoints and clusters; what the plan doesn't use any more is retired there.
        now: monotonic seconds.
        random: uniform in [0, 1), for balancing.
        allow_any: whether hosts the mesh doesn't know pass through.
        strategy: the user's own way to wait and stop.
        identity: whether this process has one, and so speaks mTLS to endpoints that announce theirs.
        service: of this process, None for a pure client.
        labels: of this process.
        caller: the name of this process's machine, which `useSourceIp` hashes.
    """
    hosts = hosts_of(snapshot.instances, snapshot.resources)
    clusters = Clusters(hosts, snapshot.resources, namespace, store, now, random, identity=identity, caller=caller)
    routes = Routes(clusters, strategy)
    services = _virtual_services(snapshot.resources)
    names: dict[str, VirtualHost] = {}
    wildcards: list[tuple[str, VirtualHost]] = []
    passing: list[str] = []
    for host in dict.fromkeys((*hosts, *services, *_stood_in_for(snapshot.resources))):
        if _unasked(host, namespace, snapshot.asked):
            continue  # the first call to it asks the registry, and a table without endpoints would be in the way
        known = hosts.get(host)
        rules = services.get(host) or services.get(_covering(host, services), [])
        if host.startswith("*") and not rules and known is not None and not any(known.ports.values()):
            # A ServiceEntry like `*.example.com` without endpoints allows its hosts; each is dialled by its own name.
            passing.append(host[1:])
            continue
        virtual = routes.virtual_host(host, known, rules)
        if host.startswith("*"):
            wildcards.append((host[1:], virtual))
        else:
            names.update(dict.fromkeys(aliases(host, namespace), virtual))
            if snapshot.asked is not None and host.endswith(_HOME):
                names.setdefault(f"{host.removesuffix(_HOME)}.service.consul", virtual)
    inbound = inbound_of(snapshot, namespace, service, labels, store.inbound)
    reached = clusters.reached.union(_authorizers(inbound, namespace))
    wildcards.sort(key=lambda entry: len(entry[0]), reverse=True)
    plan = Plan(
        snapshot.version,
        names,
        wildcards,
        clusters.compiled,
        namespace=namespace,
        allow_any=allow_any,
        passing=passing,
        asked=snapshot.asked,
        wanted=frozenset(host for host in reached if _unasked(host, namespace, snapshot.asked)),
        inbound=inbound,
        secured=clusters.secured(),
    )
    store.retain(
        {(name, state.host, state.port) for name, cluster in plan.clusters.items() for state in cluster.endpoints},
        plan.clusters.keys(),
        now,
    )
    return plan


def _unasked(host: str, namespace: str, asked: frozenset[str] | None) -> bool:
    """Whether `host` is the full name of a service that a registry which tells only of what it's asked wasn't asked."""
    return asked is not None and host not in asked and service_name(host, namespace) == host


def _authorizers(inbound: Inbound, namespace: str) -> Iterator[str]:
    """The hosts that are asked about requests: the first shouldn't wait for the registry."""
    if inbound.authorization is not None:
        for one in inbound.authorization.providers.values():
            # Istio's name of a service may have a namespace in front.
            yield fqdn(one.envoy_ext_authz_http.service.rpartition("/")[2], namespace)


def _virtual_services(resources: Iterable[Resource]) -> dict[str, Rules]:
    """The VirtualServices of each host; those only for gateways are not ours."""
    found: dict[str, Rules] = {}
    for resource in resources:
        spec = resource.spec
        if isinstance(spec, VirtualServiceSpec) and (not spec.gateways or "mesh" in spec.gateways):
            for written in spec.hosts:
                found.setdefault(fqdn(written, resource.metadata.namespace), []).append((resource, spec))
    return found


def _stood_in_for(resources: Iterable[Resource]) -> Iterator[str]:
    """Hosts that others stand in for, so that calls to them can be made when nobody serves them any more."""
    for resource in resources:
        if isinstance(resource.spec, OutboundPolicySpec) and resource.spec.failover and not resource.spec.subset:
            yield fqdn(resource.spec.host, resource.metadata.namespace)


def _covering(host: str, services: Mapping[str, Rules]) -> str:
    """The most specific wildcard VirtualService for a host that has none of its own."""
    fitting = [name for name in services if name.startswith("*") and host.endswith(name[1:])]
    return max(fitting, key=len, default="")
