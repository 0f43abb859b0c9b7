"""What can be asked for by kind: names, and what a table shows of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from meshlib.cli.output import UsageError
from meshlib.registries import Instance
from meshlib.registries.base import address
from meshlib.resources import HTTPRoute, ResourceKey

__all__ = ["ALL", "INSTANCES", "KINDS", "Kind", "Table", "find", "instance_row", "label", "short"]


class Table(NamedTuple):
    """The columns of a kind beyond its name, and of those the ones that only `-o wide` shows."""

    heads: tuple[str, ...]
    wide: tuple[str, ...]
    row: Callable[[Any], tuple[str, ...]]


class Kind(NamedTuple):
    """A kind of document.

    Attributes:
        kind: as documents write it.
        names: what a command may call it, in lower case; the first is what it is printed as.
        table: from its spec.
    """

    kind: str
    names: tuple[str, ...]
    table: Table


def _virtual_service(spec: Any) -> tuple[str, ...]:
    return ", ".join(spec.hosts), "; ".join(_route(route) for route in spec.http), ", ".join(spec.gateways)


def _route(route: HTTPRoute) -> str:
    if route.redirect is not None:
        says = f"redirect {route.redirect.redirect_code}"
    elif route.direct_response is not None:
        says = f"answer {route.direct_response.status}"
    else:
        says = " + ".join(_share(one, len(route.route)) for one in route.route) or "nowhere"
    when = f"{route.name or 'match'}: " if route.match else ""
    return f"{when}{says}{' with faults' if route.fault is not None else ''}"


def _share(one: Any, count: int) -> str:
    to = one.destination
    target = f"{to.host}/{to.subset}" if to.subset else to.host
    return f"{target} {one.weight}" if count > 1 else target


def _destination_rule(spec: Any) -> tuple[str, ...]:
    return spec.host, ", ".join(subset.name for subset in spec.subsets), ", ".join(_set(spec.traffic_policy))


def _service_entry(spec: Any) -> tuple[str, ...]:
    ports = ", ".join(f"{port.number}/{port.name}" for port in spec.ports)
    endpoints = ", ".join(entry.address for entry in spec.endpoints)
    return ", ".join(spec.hosts), spec.location, spec.resolution, ports, endpoints


def _outbound_policy(spec: Any) -> tuple[str, ...]:
    return spec.host, spec.subset or "*", ", ".join(name for name in _set(spec) if name not in ("host", "subset"))


def _chosen(spec: Any) -> str:
    labels = spec.selector.match_labels if spec.selector is not None else {}
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items())) or "*"


def _request_authentication(spec: Any) -> tuple[str, ...]:
    return _chosen(spec), ", ".join(rule.issuer for rule in spec.jwt_rules)


def _authorization_policy(spec: Any) -> tuple[str, ...]:
    return _chosen(spec), spec.action, str(len(spec.rules))


def _inbound_policy(spec: Any) -> tuple[str, ...]:
    return _chosen(spec), ", ".join(name for name in _set(spec) if name != "selector")


def _peer_authentication(spec: Any) -> tuple[str, ...]:
    ports = ", ".join(f"{port}: {mtls.mode}" for port, mtls in sorted(spec.port_level_mtls.items()))
    return _chosen(spec), spec.mtls.mode if spec.mtls is not None else "UNSET", ports


def _set(struct: Any) -> Iterable[str]:
    """The fields of a struct that say something, as documents write them."""
    if struct is None:
        return []
    pairs = zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True)
    return [written for field, written in pairs if getattr(struct, field) not in (None, (), {})]


KINDS = (
    Kind("VirtualService", ("virtualservice", "virtualservices", "vs"),
         Table(("HOSTS", "ROUTES"), ("GATEWAYS",), _virtual_service)),
    Kind("DestinationRule", ("destinationrule", "destinationrules", "dr"),
         Table(("HOST", "SUBSETS"), ("POLICY",), _destination_rule)),
    Kind("ServiceEntry", ("serviceentry", "serviceentries", "se"),
         Table(("HOSTS", "LOCATION", "RESOLUTION"), ("PORTS", "ENDPOINTS"), _service_entry)),
    Kind("PeerAuthentication", ("peerauthentication", "peerauthentications", "pa"),
         Table(("SELECTOR", "MTLS"), ("PORTS",), _peer_authentication)),
    Kind("RequestAuthentication", ("requestauthentication", "requestauthentications", "ra"),
         Table(("SELECTOR", "ISSUERS"), (), _request_authentication)),
    Kind("AuthorizationPolicy", ("authorizationpolicy", "authorizationpolicies", "ap"),
         Table(("SELECTOR", "ACTION", "RULES"), (), _authorization_policy)),
    Kind("InboundPolicy", ("inboundpolicy", "inboundpolicies", "ip"),
         Table(("SELECTOR", "SETS"), (), _inbound_policy)),
    Kind("OutboundPolicy", ("outboundpolicy", "outboundpolicies", "op"),
         Table(("HOST", "SUBSET", "SETS"), (), _outbound_policy)),
)  # fmt: skip

INSTANCES = ("instance", "instances", "endpoint", "endpoints", "ep")
ALL = "all"


def find(name: str) -> Kind | None:
    """The kind a command calls `name`, None for instances. Raises UsageError."""
    lower = name.lower()
    if lower in INSTANCES:
        return None
    for kind in KINDS:
        if lower in kind.names:
            return kind
    known = ", ".join([ALL, "instances (ep)", *(f"{kind.names[0]} ({kind.names[-1]})" for kind in KINDS)])
    raise UsageError(f"{name!r} is not a kind; known: {known}")


def short(kind: str) -> str:
    """What a kind is printed as."""
    return next((known.names[0] for known in KINDS if known.kind == kind), kind.lower())


def label(key: ResourceKey, namespace: str) -> str:
    """`virtualservice/reviews`, with the namespace in front of the name when it isn't the one asked for."""
    where = "" if key.namespace == namespace else f"{key.namespace}/"
    return f"{short(key.kind)}/{where}{key.name}"


def instance_row(instance: Instance) -> tuple[str, str, str, str, str, str, str]:
    """Service, address, health and labels; in a wide table weight, locality and identity, too."""
    return (
        instance.service,
        address(instance.host, instance.port),
        "healthy" if instance.healthy else "unhealthy",
        ",".join(f"{name}={value}" for name, value in sorted(instance.labels.items())),
        str(instance.weight),
        instance.locality,
        instance.identity,
    )
