"""The hosts of a snapshot, each with its endpoints, from the registry's instances and from ServiceEntry documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from meshlib.registries.base import Instance
from meshlib.resources import Resource, ServiceEntrySpec, fqdn

__all__ = ["Host", "Member", "host_of", "hosts_of", "service_host"]


class Member(NamedTuple):
    """An endpoint as configured; `identity` is the SPIFFE ID it announces, "": it takes plain connections."""

    host: str
    port: int
    weight: int = 1
    labels: Mapping[str, str] = {}
    healthy: bool = True
    locality: str = ""
    identity: str = ""


class Host(NamedTuple):
    """One host and who serves it.

    Attributes:
        name: fully qualified, or a wildcard such as `*.example.com`.
        ports: the members of each port; the key 0 stands for "whatever port the URL names".
        namespace: of the service, for a registered service, else the ServiceEntry's.
    """

    name: str
    ports: Mapping[int, tuple[Member, ...]]
    namespace: str


def service_host(service: str, namespace: str) -> str:
    """The fully qualified host of a registered service."""
    return fqdn(service, namespace)


def host_of(instance: Instance) -> str:
    """The fully qualified host an instance serves: in another datacenter by Consul's DNS name."""
    if instance.datacenter:
        return f"{instance.service}.service.{instance.datacenter}.consul"
    return service_host(instance.service, instance.namespace)


def hosts_of(instances: Iterable[Instance], resources: Iterable[Resource]) -> dict[str, Host]:
    """Every host by its name. A ServiceEntry for a registered service's host adds its endpoints to it."""
    hosts: dict[str, Host] = {}
    services: dict[str, list[Member]] = {}
    homes: dict[str, str] = {}
    for instance in instances:
        member = Member(
            instance.host,
            instance.port,
            instance.weight,
            instance.labels,
            instance.healthy,
            instance.locality,
            instance.identity,
        )
        name = host_of(instance)
        homes[name] = instance.namespace
        services.setdefault(name, []).append(member)
    for name, members in services.items():
        hosts[name] = Host(name, {0: tuple(members)}, homes[name])
    for resource in resources:
        if isinstance(resource.spec, ServiceEntrySpec):
            for host in _entry_hosts(resource, resource.spec):
                hosts[host.name] = _joined(hosts.get(host.name), host)
    return hosts


def _joined(known: Host | None, host: Host) -> Host:
    if known is None:
        return host
    # Where one of them names its ports, the members of the other that serve whatever port is asked for serve each.
    ports = {*known.ports, *host.ports}
    wanted = (ports - {0}) or ports
    return Host(known.name, {port: _at(known, port) + _at(host, port) for port in sorted(wanted)}, known.namespace)


def _at(host: Host, port: int) -> tuple[Member, ...]:
    return host.ports.get(port) or host.ports.get(0, ())


def _entry_hosts(resource: Resource, entry: ServiceEntrySpec) -> Iterator[Host]:
    """The hosts of a ServiceEntry. With one port, any port of a URL means it, as for registered services."""
    namespace = resource.metadata.namespace
    for written in entry.hosts:
        name = fqdn(written, namespace)
        ports: dict[int, tuple[Member, ...]] = {}
        for port in entry.ports:
            members = tuple(
                Member(
                    endpoint.address,
                    endpoint.ports.get(port.name) or port.target_port or port.number,
                    endpoint.weight or 1,
                    endpoint.labels,
                    locality=endpoint.locality or "",
                )
                for endpoint in entry.endpoints
            )
            if not members and entry.resolution != "STATIC" and not name.startswith("*"):
                # Without endpoints the host is its own: its name is resolved when it is dialled.
                members = (Member(name, port.target_port or port.number),)
            ports[port.number] = members
        yield Host(name, ports if len(ports) > 1 else {0: next(iter(ports.values()), ())}, namespace)
