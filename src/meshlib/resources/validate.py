"""What types can't say: the rules within one document.

Every check yields findings, a path and a message each, and goes on. Where Istio's own validation has a rule, it is the
same rule (`pkg/config/validation`), except that what could only be a slip is refused too, and said so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from meshlib.resources import destinations
from meshlib.resources import networking as istio
from meshlib.resources.authenticating import check_request_authentication
from meshlib.resources.authentication import RequestAuthenticationSpec
from meshlib.resources.authorization import AuthorizationPolicySpec
from meshlib.resources.authorizing import check_authorization
from meshlib.resources.documents import Path, Spec, show
from meshlib.resources.fields import nearest
from meshlib.resources.hashing import check_balancer
from meshlib.resources.inbound import InboundPolicySpec
from meshlib.resources.limiting import check_inbound_policy
from meshlib.resources.outbound import OutboundPolicySpec
from meshlib.resources.routes import check_routes
from meshlib.resources.securing import check_peer_authentication, check_tls
from meshlib.resources.security import PeerAuthenticationSpec
from meshlib.resources.shapes import Finding, check_host, check_hosts, check_labels, check_subset_name

__all__ = ["check", "name_fault"]

_MAX_FAILOVER = 16
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def check(spec: Spec, raw: Mapping[str, Any]) -> Iterator[Finding]:
    """The findings in a document's spec; `raw` is the spec as written, for what defaults would hide."""
    root: Path = ("spec",)
    match spec:
        case istio.VirtualServiceSpec():
            return check_routes(spec, raw, root)
        case destinations.DestinationRuleSpec():
            return _destination_rule(spec, root)
        case istio.ServiceEntrySpec():
            return _service_entry(spec, root)
        case OutboundPolicySpec():
            return _outbound_policy(spec, root)
        case PeerAuthenticationSpec():
            return check_peer_authentication(spec, root)
        case RequestAuthenticationSpec():
            return check_request_authentication(spec, root)
        case AuthorizationPolicySpec():
            return check_authorization(spec, raw, root)
        case InboundPolicySpec():
            return check_inbound_policy(spec, root)


def name_fault(name: str) -> str | None:
    """What is wrong with a document's name or namespace, None when nothing is."""
    if _DNS_NAME.fullmatch(name):
        return None
    return f"{show(name)} is not a name: lower case letters, digits, '-' and '.' expected, at most 253"


def _destination_rule(spec: destinations.DestinationRuleSpec, at: Path) -> Iterator[Finding]:
    yield from check_host(spec.host, (*at, "host"), wildcard=True)
    yield from _traffic_policy(spec.traffic_policy, (*at, "trafficPolicy"))
    seen: set[str] = set()
    for index, subset in enumerate(spec.subsets):
        here = (*at, "subsets", index)
        yield from check_subset_name(subset.name, (*here, "name"))
        if subset.name in seen:
            yield (*here, "name"), f'the subset "{subset.name}" is defined twice; rename or remove one'
        seen.add(subset.name)
        yield from check_labels(subset.labels, (*here, "labels"))
        yield from _traffic_policy(subset.traffic_policy, (*here, "trafficPolicy"))


def _traffic_policy(policy: destinations.TrafficPolicy | None, at: Path) -> Iterator[Finding]:
    if policy is not None and policy.load_balancer is not None:
        yield from check_balancer(policy.load_balancer, (*at, "loadBalancer"))
    if policy is not None and policy.tls is not None:
        yield from check_tls(policy.tls, (*at, "tls"))


def _service_entry(spec: istio.ServiceEntrySpec, at: Path) -> Iterator[Finding]:
    yield from check_hosts(spec.hosts, at)
    if not spec.ports:
        yield (*at, "ports"), "is empty; write at least one port"
    yield from _ports(spec.ports, (*at, "ports"))
    wildcard = [host for host in spec.hosts if host.startswith("*")]
    if wildcard and spec.resolution != "NONE" and not spec.endpoints:
        yield (*at, "hosts"), f"{show(wildcard[0])} can't be looked up; write endpoints, or resolution: NONE"
    if spec.resolution == "NONE" and spec.endpoints:
        yield (*at, "endpoints"), "have no meaning with resolution: NONE; write resolution: STATIC or DNS"
    if spec.resolution == "STATIC" and not spec.endpoints:
        yield (*at, "endpoints"), "is empty, but resolution: STATIC needs at least one"
    names = {port.name for port in spec.ports}
    for index, endpoint in enumerate(spec.endpoints):
        yield from _endpoint(endpoint, names, (*at, "endpoints", index))


def _ports(ports: Iterable[istio.ServicePort], at: Path) -> Iterator[Finding]:
    names: set[str] = set()
    numbers: set[int] = set()
    for index, port in enumerate(ports):
        if port.name in names:
            yield (*at, index, "name"), f'the port name "{port.name}" stands twice; names must differ'
        if port.number in numbers:
            yield (*at, index, "number"), f"the port {port.number} stands twice; numbers must differ"
        names.add(port.name)
        numbers.add(port.number)


def _endpoint(endpoint: istio.WorkloadEntry, names: set[str], at: Path) -> Iterator[Finding]:
    if endpoint.address.startswith("unix://"):
        yield (*at, "address"), "unix domain sockets are not supported yet; write a host name or an IP address"
    else:
        yield from check_host(endpoint.address, (*at, "address"), wildcard=False)
    for name in endpoint.ports:
        if name not in names:
            yield (*at, "ports", name), f"no port of this ServiceEntry is called that{nearest(name, names)}"
    yield from check_labels(endpoint.labels, (*at, "labels"))


def _outbound_policy(spec: OutboundPolicySpec, at: Path) -> Iterator[Finding]:
    yield from check_host(spec.host, (*at, "host"), wildcard=True)
    if spec.subset is not None:
        yield from check_subset_name(spec.subset, (*at, "subset"))
    breaker = spec.circuit_breaker
    if breaker is not None:
        here = (*at, "circuitBreaker")
        if breaker.error_percent is None and breaker.consecutive_failures is None:
            yield here, "never opens; write errorPercent or consecutiveFailures"
        if breaker.max_open_for < breaker.open_for:
            yield (*here, "maxOpenFor"), f"is below openFor ({breaker.open_for:g}s); write a longer one"
    yield from _failover(spec, (*at, "failover"))


def _failover(spec: OutboundPolicySpec, at: Path) -> Iterator[Finding]:
    if len(spec.failover) > _MAX_FAILOVER:
        yield at, f"has {len(spec.failover)} destinations; at most {_MAX_FAILOVER} are allowed"
    if spec.failover and "*" in spec.host:
        yield at, f"needs a single host to stand in for, and {show(spec.host)} is many; write a policy for each host"
    seen = {(spec.host, spec.subset)}
    for index, one in enumerate(spec.failover):
        yield from check_host(one.host, (*at, index, "host"), wildcard=False)
        if one.subset is not None:
            yield from check_subset_name(one.subset, (*at, index, "subset"))
        if (one.host, one.subset) in seen:
            yield (*at, index), "stands here twice, or is the destination itself; remove one"
        seen.add((one.host, one.subset))
