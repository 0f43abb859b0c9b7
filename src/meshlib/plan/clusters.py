"""Compiling clusters: endpoints joined with the policy of DestinationRule and OutboundPolicy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from meshlib.plan.affinity import MakePicker, hash_key, maker
from meshlib.plan.cluster import Cluster
from meshlib.plan.encryption import peers_of
from meshlib.plan.hosts import Host, Member
from meshlib.plan.peers import PeerTls
from meshlib.plan.policies import balancer, breaker, budget, hedge, limits, outlier, over, panic
from meshlib.policy.balance import PANIC_THRESHOLD, FailoverPicker, Picker
from meshlib.policy.hashing import HashPicker
from meshlib.resources import DestinationRuleSpec, OutboundPolicySpec, Resource, TrafficPolicy, fqdn
from meshlib.state.cluster import ClusterState
from meshlib.state.store import StateStore

__all__ = ["Clusters"]

T = TypeVar("T")
Random = Callable[[], float]
NO_POLICY = TrafficPolicy()
NO_OUTBOUND = OutboundPolicySpec(host="*")
NO_PANIC = 0.0


class _Group(NamedTuple):
    """The endpoints of a host or of one subset of it, and what its DestinationRule says.

    Attributes:
        host: fully qualified.
        total: the host's endpoints before the subset's labels were asked for.
        home: the service's namespace.
    """

    host: str
    members: Sequence[Member]
    total: int
    labels: Mapping[str, str]
    policy: TrafficPolicy
    home: str


class Clusters:
    """The clusters of one plan, each compiled when a route first asks for it.

    Args:
        hosts: of the snapshot.
        resources: of the snapshot.
        namespace: of the caller, whose own rules come first.
        store: where states are adopted from.
        now: monotonic seconds.
        random: uniform in [0, 1).
        identity: whether the caller has one, and so speaks mTLS to endpoints that announce theirs.
        caller: the name of its machine, which `useSourceIp` hashes.

    Attributes:
        compiled: the clusters, by name.
        reached: the hosts that calls to them may get to.
    """

    def __init__(
        self,
        hosts: Mapping[str, Host],
        resources: Iterable[Resource],
        namespace: str,
        store: StateStore,
        now: float,
        random: Random,
        *,
        identity: bool = False,
        caller: str = "",
    ) -> None:
        self._hosts = hosts
        self._store = store
        self._now = now
        self._random = random
        self._namespace = namespace
        self._identity = identity
        self._caller = caller
        self._rules: dict[str, list[tuple[str, DestinationRuleSpec]]] = {}
        self._policies: dict[str, dict[str, list[tuple[str, OutboundPolicySpec]]]] = {}
        for resource in resources:
            home = resource.metadata.namespace
            if isinstance(resource.spec, DestinationRuleSpec):
                self._rules.setdefault(fqdn(resource.spec.host, home), []).append((home, resource.spec))
            elif isinstance(resource.spec, OutboundPolicySpec):
                policies = self._policies.setdefault(resource.spec.subset or "", {})
                policies.setdefault(fqdn(resource.spec.host, home), []).append((home, resource.spec))
        self.compiled: dict[str, Cluster] = {}
        self.reached: set[str] = set()

    def get(self, host: str, subset: str | None, asked: int | None, port: int) -> Cluster:
        """The cluster of a host and subset. A host nobody serves has no endpoints, nor has a port it doesn't have.

        Args:
            host: fully qualified.
            subset: its name, None for all endpoints.
            asked: the port a destination names, None where it names none.
            port: of the virtual host whose route it is (0: the only one), for a destination that names none.
        """
        port = self._port(host, asked, port)
        name = _name(host, subset, port)
        cluster = self.compiled.get(name)
        if cluster is None:
            cluster = self.compiled[name] = self._compile(name, subset, self._group(host, subset, port), port)
        return cluster

    def secured(self) -> dict[str, bool]:
        """Whether the rule for each host that DestinationRules are written for, in full or a wildcard, asks for TLS."""
        found: dict[str, bool] = {}
        for host in self._rules:
            _, rule = _applicable(self._rules, host, self._namespace, self._namespace) or ("", None)
            tls = rule.traffic_policy.tls if rule is not None and rule.traffic_policy is not None else None
            found[host] = tls is not None and tls.mode != "DISABLE"
        return found

    def _port(self, host: str, asked: int | None, port: int) -> int:
        known = self._hosts.get(host)
        if known is None or 0 in known.ports:
            return 0
        if asked is not None:
            return asked
        return port if port in known.ports else next(iter(known.ports))

    def _group(self, host: str, subset: str | None, port: int) -> _Group:
        self.reached.add(host)
        known = self._hosts.get(host)
        members = known.ports.get(port, ()) if known is not None else ()
        home = known.namespace if known is not None else self._namespace
        _, rule = _applicable(self._rules, host, self._namespace, home) or ("", None)
        policy = rule.traffic_policy or NO_POLICY if rule is not None else NO_POLICY
        labels: Mapping[str, str] = {}
        inside: Sequence[Member] = members
        if subset:
            # Rules for one host are joined, as in Istio: a subset may be another's.
            joined = (*(() if rule is None else (rule,)), *(one for _, one in self._rules.get(host, ())))
            chosen = next((one for each in joined for one in each.subsets if one.name == subset), None)
            if chosen is not None:
                labels = chosen.labels
                policy = over(policy, chosen.traffic_policy)
            # Nobody knows who belongs to a subset that isn't defined, least of all everybody.
            inside = [member for member in members if chosen is not None and labels.items() <= member.labels.items()]
        return _Group(host, inside, len(members), labels, policy, home)

    def _compile(self, name: str, subset: str | None, group: _Group, port: int) -> Cluster:
        policy = group.policy
        namespace, outbound = self._outbound(group.host, subset, group.home)
        others = {
            _name(host, one.subset, to): self._group(host, one.subset, to)
            for one in outbound.failover
            for host in [fqdn(one.host, namespace)]
            for to in [self._port(host, None, port)]
        }
        kind = balancer(policy, outbound)
        hashing = policy.load_balancer.consistent_hash if policy.load_balancer is not None else None
        make = maker(kind, hashing)
        state = self._store.cluster(name)
        # While endpoints elsewhere can take over, a bad one here is no better than nothing.
        level = panic(policy, outbound, NO_PANIC if others else PANIC_THRESHOLD)
        groups = {name: group} | others
        tiers = {to: self._picker(make, state, to, one, level) for to, one in groups.items()}
        picker = FailoverPicker(tiers, self._random) if others else tiers[name]
        state.tables = {to: tier.table for to, tier in tiers.items() if isinstance(tier, HashPicker)}
        peers: dict[tuple[str, int], PeerTls] = {}
        for tier in (*reversed(others.values()), group):
            peers |= peers_of(tier.host, tier.members, tier.policy.tls, identity=self._identity)
        return Cluster(
            name,
            group.host,
            subset or "",
            group.labels,
            picker,
            state,
            total=group.total,
            limits=limits(policy),
            budget=budget(policy, outbound),
            outlier=outlier(policy.outlier_detection, outbound),
            breaker=breaker(outbound),
            hedge=hedge(outbound),
            deadline=outbound.deadline,
            peers=peers,
            hash_key=hash_key(hashing, self._caller) if hashing is not None and state.tables else None,
        )

    def _picker(self, make: MakePicker, state: ClusterState, tier: str, group: _Group, level: float) -> Picker:
        if isinstance(make, partial):
            make = partial(make, last=state.tables.get(tier))
        return make(
            [self._store.endpoint(state.name, member.host, member.port, self._now) for member in group.members],
            [member.weight for member in group.members],
            [member.healthy for member in group.members],
            self._random,
            level,
        )

    def _outbound(self, host: str, subset: str | None, home: str) -> tuple[str, OutboundPolicySpec]:
        """The OutboundPolicy for a subset, else for its whole host, and the namespace it was written in."""
        for wanted in (subset or "", ""):
            found = _applicable(self._policies.get(wanted, {}), host, self._namespace, home)
            if found is not None:
                return found
        return self._namespace, NO_OUTBOUND


def _name(host: str, subset: str | None, port: int) -> str:
    return host + (f"|{subset or ''}" if subset or port else "") + (f"|{port}" if port else "")


def _applicable(table: Mapping[str, list[tuple[str, T]]], host: str, caller: str, home: str) -> tuple[str, T] | None:
    """The document for a host, and its namespace: the most specific name, the caller's namespace before the home's."""
    names = [host, *(name for name in sorted(table, key=len, reverse=True) if _covers(name, host))]
    for name in names:
        entries = table.get(name, ())
        for namespace in (caller, home, None):
            for space, spec in entries:
                if namespace is None or space == namespace:
                    return space, spec
    return None


def _covers(pattern: str, host: str) -> bool:
    return pattern.startswith("*") and host.endswith(pattern[1:])
