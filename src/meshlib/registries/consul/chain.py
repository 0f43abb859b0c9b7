"""Consul's compiled discovery chains as documents, so that they are judged, explained and kept like anybody's.

A chain becomes a VirtualService (router, splitter, redirect, default subset), DestinationRules (subsets, connect
timeout, load balancer) and OutboundPolicies (failover). Each document bears the label `meshlib.io/from`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from meshlib.registries.consul.chainparts import (
    Inexpressible,
    balancer_of,
    duration_of,
    faults_of,
    headers_of,
    match_of,
    timeout_of,
)
from meshlib.registries.consul.chaintypes import (
    Chain,
    ChainTarget,
    Node,
    Route,
    read_chain,
)
from meshlib.resources import Source, fqdn, load
from meshlib.resources.documents import show
from meshlib.resources.precedence import FROM_CHAIN, MADE_BY
from meshlib.resources.routes import RETRY_WORDS

__all__ = ["Target", "documents", "subset_label", "targets", "warnings"]

MAX_STEPS = 100_000
"""Nodes looked at for one chain; a malformed chain may go in circles."""

MAX_DEPTH = 32
MAX_FAILOVER = 16

_ISTIO, _OURS = "networking.istio.io/v1", "meshlib/v1"
_HOME = ("", "default")


class Target(NamedTuple):
    """Whose endpoints a chain leads to.

    Attributes:
        host: full, by which documents name it.
        service, datacenter: in Consul's words; the datacenter is "" where the chain was compiled.
        filter: an expression for Consul to evaluate, "" for every instance.
        only_passing: whether instances in warning are left out.
        subset: its name, "" for the whole service. Its instances wear `subset_label(subset)`: `"true"`.
    """

    host: str
    service: str
    datacenter: str
    filter: str
    only_passing: bool
    subset: str


def subset_label(subset: str) -> str:
    """The label by which generated DestinationRules select the instances of one of Consul's subsets."""
    return f"consul-subset/{subset}"


def documents(chain: bytes | Mapping[str, Any], namespace: str) -> tuple[Source, ...]:
    """The documents that say what a chain does; none for a chain that nobody configured.

    Each loads without a problem. A route that no VirtualService can express, or whose expression could take for ever,
    is left out, and `warnings` say so: its requests take the routes after it.

    Args:
        chain: the answer of `GET /v1/discovery-chain/<service>`.
        namespace: of the services it names.

    Raises:
        ValueError: it isn't a chain, or goes in circles. What was known before should stay.
    """
    return _Translation(chain, namespace).sources


def warnings(chain: bytes | Mapping[str, Any], namespace: str) -> tuple[str, ...]:
    """What `documents` left out of a chain, in words. Raises ValueError as it does."""
    return _Translation(chain, namespace).warnings


def targets(chain: bytes | Mapping[str, Any], namespace: str = "default") -> tuple[Target, ...]:
    """Whose endpoints a chain leads to, besides its own service as a whole. Raises ValueError as `documents` does."""
    read, _ = read_chain(chain)
    own = fqdn(read.service_name, namespace)
    found = {
        Target(
            _host(read, target, namespace),
            target.service,
            "" if target.datacenter == read.datacenter else target.datacenter,
            target.subset.filter,
            target.subset.only_passing,
            target.service_subset,
        )
        for target in read.targets.values()
        if not _unreachable(target)
    }
    return tuple(sorted(target for target in found if target.subset or target.host != own))


def _host(chain: Chain, target: ChainTarget, namespace: str) -> str:
    if target.datacenter == chain.datacenter:
        return fqdn(target.service, namespace)
    return f"{target.service}.service.{target.datacenter}.consul".lower()


def _unreachable(target: ChainTarget) -> str:
    """Why nobody can be called there, "" when somebody can."""
    if target.peer:
        return f"is of the peer {show(target.peer)}, and peers can't be reached yet"
    if target.partition not in _HOME:
        return f"is of the partition {show(target.partition)}, which can't be reached yet"
    return ""


class _Translation:
    """One chain on its way to documents."""

    def __init__(self, answer: bytes | Mapping[str, Any], namespace: str) -> None:
        self._chain, unknown = read_chain(answer)
        self._namespace = namespace
        self._steps = 0
        self._origin = f"consul discovery-chain {self._chain.service_name}"
        self._warnings = [f"{name} is not supported yet" for name in unknown]
        self.sources = tuple(self._documents())
        if problems := load(self.sources).problems:
            raise ValueError(f"{self._origin} can't be said in documents: {problems[0]}")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sorted, each once, with the place they come from."""
        return tuple(f"{self._origin}: {text}" for text in sorted(set(self._warnings)))

    def _documents(self) -> Iterator[Source]:
        chain = self._chain
        resolvers = {node.resolver.target: node for node in self._reached() if node.resolver is not None}
        own = fqdn(chain.service_name, self._namespace)
        start = self._node(chain.start_node)
        plain = start.resolver is not None and self._destination(start.resolver.target) == {"host": own}
        if (not plain or self._own_timeout(start)) and (routes := self._routes(start)):
            yield self._document("VirtualService", _ISTIO, own, {"hosts": [own], "http": routes})
        for host, spec in self._rules(resolvers).items():
            yield self._document("DestinationRule", _ISTIO, host, spec)
        for target, node in resolvers.items():
            if others := self._failover(node):
                to = self._destination(target)
                name = f"{to['subset']}.{to['host']}" if "subset" in to else to["host"]
                yield self._document("OutboundPolicy", _OURS, name, to | {"failover": others})

    def _document(self, kind: str, version: str, about: str, spec: dict[str, Any]) -> Source:
        name = f"consul.{self._chain.service_name}.{about}".lower().replace("_", "-")
        metadata = {"name": name, "namespace": self._namespace, "labels": {MADE_BY: FROM_CHAIN}}
        document = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
        return Source(self._origin, msgspec.json.encode(document, order="sorted"))

    # The graph.

    def _node(self, name: str) -> Node:
        node = self._chain.nodes.get(name)
        if node is None:
            raise ValueError(f"{self._origin} leads to the node {show(name)}, which it doesn't have")
        return node

    def _reached(self) -> Iterator[Node]:
        """Every node that requests can get to, each once."""
        seen: set[str] = set()
        ahead = [self._chain.start_node]
        while ahead:
            name = ahead.pop()
            if name not in seen:
                seen.add(name)
                node = self._node(name)
                ahead += [route.next_node for route in node.routes]
                ahead += [split.next_node for split in node.splits]
                yield node

    def _destination(self, target: str) -> dict[str, str]:
        found = self._chain.targets.get(target)
        if found is None:
            raise ValueError(f"{self._origin} leads to the target {show(target)}, which it doesn't have")
        if why := _unreachable(found):
            self._warnings.append(f"{target} {why}")
        to = {"host": _host(self._chain, found, self._namespace)}
        return to | {"subset": found.service_subset} if found.service_subset else to

    # Routes and splits.

    def _routes(self, start: Node) -> list[dict[str, Any]]:
        if not start.routes:
            timeout = self._own_timeout(start)
            return [{"route": self._shares(start)} | ({"timeout": timeout} if timeout else {})]
        found = []
        for number, route in enumerate(start.routes):
            try:
                http = self._route(route)
            except Inexpressible as error:
                self._warnings.append(f"route {number} is left out: it has {error}")
                continue
            if faults := faults_of(http):
                self._warnings.append(f"route {number} is left out: {faults}")
            else:
                found.append(http)
        return found

    def _own_timeout(self, start: Node) -> str:
        """The timeout of a chain that is a resolver only, "" for none: of others the router's routes have theirs."""
        if start.resolver is None or start.resolver.default:
            return ""
        return timeout_of(start.resolver.request_timeout, self._warnings.append)

    def _route(self, route: Route) -> dict[str, Any]:
        to = route.definition.destination
        http: dict[str, Any] = {"route": self._shares(self._node(route.next_node))}
        if match := match_of(route.definition.match.http):
            http["match"] = [match]
        if to.prefix_rewrite:
            http["rewrite"] = {"uri": to.prefix_rewrite}
        if timeout := timeout_of(to.request_timeout, self._warnings.append):
            http["timeout"] = timeout
        if headers := headers_of(to.request_headers, to.response_headers):
            http["headers"] = headers
        words = ["connect-failure"] if to.retry_on_connect_failure else []
        words += [str(status) for status in to.retry_on_status_codes]
        words += [word for word in to.retry_on if word in RETRY_WORDS]
        self._warnings += [f"RetryOn {show(word)} is not supported yet" for word in to.retry_on if word not in words]
        if to.num_retries > 0 or words:
            # Envoy's count where none is written.
            http["retries"] = {"attempts": max(to.num_retries, 1)} | ({"retryOn": ",".join(words)} if words else {})
        return http

    def _shares(self, node: Node) -> list[dict[str, Any]]:
        """Where a node's requests go, weighed in percent, or in a tenth or a hundredth of one where it takes that."""
        shares = list(self._leaves(node, 10_000.0, {}, 0))
        if len(shares) == 1:
            return [{name: value for name, value in shares[0].items() if name != "weight"}]
        unit = next(unit for unit in (100, 10, 1) if all(share["weight"] % unit == 0 for share in shares))
        return [share | {"weight": share["weight"] // unit} for share in shares]

    def _leaves(self, node: Node, weight: float, headers: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
        self._steps += 1
        if depth > MAX_DEPTH or self._steps > MAX_STEPS:
            raise ValueError(f"{self._origin} goes in circles, or is too large")
        for split in node.splits:
            own = headers_of(split.definition.request_headers, split.definition.response_headers)
            part = weight * split.weight / 100.0
            yield from self._leaves(self._node(split.next_node), part, own or headers, depth + 1)
        if node.splits:
            return
        if node.resolver is None:
            raise ValueError(f"{self._origin} has a {show(node.type)} where a splitter or a resolver is expected")
        share = {"destination": self._destination(node.resolver.target), "weight": round(weight)}
        yield share | ({"headers": headers} if headers else {})

    # Targets.

    def _rules(self, resolvers: Mapping[str, Node]) -> dict[str, dict[str, Any]]:
        """The DestinationRule of each host: its own policy and its subsets."""
        rules: dict[str, dict[str, Any]] = {}
        failover = {target for node in resolvers.values() for target in self._others(node)}
        for target in sorted({*resolvers, *failover}):
            to = self._destination(target)
            policy = self._policy(resolvers[target]) if target in resolvers else {}
            rule = {"host": to["host"]} | rules.get(to["host"], {})
            if "subset" in to:
                subset = {"name": to["subset"], "labels": {subset_label(to["subset"]): "true"}}
                rule["subsets"] = [*rule.get("subsets", ()), subset | policy]
            elif policy:
                rule |= policy
            if len(rule) > 1:
                rules[to["host"]] = rule
        return rules

    def _policy(self, node: Node) -> dict[str, Any]:
        policy: dict[str, Any] = {}
        if node.resolver is not None and not node.resolver.default:
            if node is not self._node(self._chain.start_node) and node.resolver.request_timeout not in ("", "0s", 0):
                why = "Consul has it only where no router or splitter leads to the resolver"
                self._warnings.append(f"RequestTimeout of a resolver is left out: {why}; write one in a router")
            if timeout := duration_of("ConnectTimeout", node.resolver.connect_timeout, self._warnings.append):
                policy["connectionPool"] = {"tcp": {"connectTimeout": timeout}}
        if balancer := balancer_of(node.load_balancer, self._warnings.append):
            policy["loadBalancer"] = balancer
        return {"trafficPolicy": policy} if policy else {}

    def _others(self, node: Node) -> tuple[str, ...]:
        written = node.resolver.failover.targets if node.resolver is not None else ()
        reachable = [target for target in written if not _unreachable(self._chain.targets.get(target, _NOBODY))]
        for target in (*written[MAX_FAILOVER:], *(one for one in written if one not in reachable)):
            self._warnings.append(f"failover to {show(target)} is left out")
        return tuple(reachable[:MAX_FAILOVER])

    def _failover(self, node: Node) -> list[dict[str, str]]:
        return [self._destination(target) for target in self._others(node)]


_NOBODY = ChainTarget("", "")
