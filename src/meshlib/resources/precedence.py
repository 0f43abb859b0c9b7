"""Whose word counts where a user's document and one made of the registry's own mesh configuration speak of one host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from meshlib.resources.destinations import DestinationRuleSpec, Subset
from meshlib.resources.documents import FieldNote, Resource, show_path
from meshlib.resources.names import fqdn
from meshlib.resources.networking import VirtualServiceSpec
from meshlib.resources.outbound import OutboundPolicySpec

__all__ = ["FROM_CHAIN", "MADE_BY", "Settled", "made", "settle"]

MADE_BY = "meshlib.io/from"
"""The label of documents that nobody wrote; its value says what they were made of."""

FROM_CHAIN = "consul-discovery-chain"
"""Of documents made of Consul's compiled discovery chain."""

_Written = Mapping[tuple[str, str], Sequence[Resource]]


class Settled(NamedTuple):
    """What is in force of some resources, and of what was made and isn't, why."""

    resources: tuple[Resource, ...]
    notes: tuple[FieldNote, ...]


def made(resource: Resource) -> bool:
    """Whether the document was made of the registry's own mesh configuration; nobody wrote it."""
    return MADE_BY in resource.metadata.labels


def settle(resources: Iterable[Resource]) -> Settled:
    """Where a document speaks of the same host as one that was made, the document wins.

    A VirtualService or an OutboundPolicy that was made is left out then; of a DestinationRule the subsets that the
    document lacks stay, because routes may name them. A document for a wildcard speaks of no single host: its policies
    hold for the host beside what was made.
    """
    every = tuple(resources)
    if not any(made(resource) for resource in every):
        return Settled(every, ())
    written: dict[tuple[str, str], list[Resource]] = {}
    for resource in every:
        if not made(resource):
            for host in _hosts(resource):
                written.setdefault((resource.kind, host), []).append(resource)
    kept: list[Resource] = []
    notes: list[FieldNote] = []
    for resource in every:
        winner = _winner(resource, written) if made(resource) else None
        if winner is not None:
            notes.append(_note(resource, winner))
        settled = _settled(resource, winner, written) if made(resource) else resource
        kept += [settled] if settled is not None else []
    return Settled(tuple(kept), tuple(notes))


def _hosts(resource: Resource) -> Iterator[str]:
    spec, namespace = resource.spec, resource.metadata.namespace
    if isinstance(spec, VirtualServiceSpec):
        if not spec.gateways or "mesh" in spec.gateways:
            yield from (fqdn(host, namespace) for host in spec.hosts)
    elif isinstance(spec, DestinationRuleSpec | OutboundPolicySpec):
        yield fqdn(spec.host, namespace)


def _winner(resource: Resource, written: _Written) -> Resource | None:
    """The document that speaks of the same host; an OutboundPolicy only if it holds for the same endpoints."""
    for host in _hosts(resource):
        for other in written.get((resource.kind, host), ()):
            if not isinstance(resource.spec, OutboundPolicySpec) or _subset(other) in (None, _subset(resource)):
                return other
    return None


def _subset(resource: Resource) -> str | None:
    return resource.spec.subset if isinstance(resource.spec, OutboundPolicySpec) else None


def _settled(resource: Resource, winner: Resource | None, written: _Written) -> Resource | None:
    """What is left of a made document."""
    spec = resource.spec
    wide = _wildcard(resource, written)
    if isinstance(spec, DestinationRuleSpec):
        over = winner or wide
        if over is None or not isinstance(over.spec, DestinationRuleSpec):
            return resource
        defined = {subset.name for subset in over.spec.subsets}
        lacking = tuple(Subset(one.name, one.labels) for one in spec.subsets if one.name not in defined)
        if not lacking:
            return None
        rule = DestinationRuleSpec(spec.host, over.spec.traffic_policy, (*over.spec.subsets, *lacking))
        return msgspec.structs.replace(resource, spec=rule)
    if winner is not None:
        return None
    if isinstance(spec, OutboundPolicySpec) and wide is not None and isinstance(wide.spec, OutboundPolicySpec):
        policy = msgspec.structs.replace(wide.spec, host=spec.host, subset=spec.subset, failover=spec.failover)
        return msgspec.structs.replace(resource, spec=policy)
    return resource


def _wildcard(resource: Resource, written: _Written) -> Resource | None:
    """The document of the most specific wildcard that covers the host."""
    for host in _hosts(resource):
        labels = host.split(".")
        for start in range(1, len(labels) + 1):
            found = written.get((resource.kind, ".".join(["*", *labels[start:]])), ())
            whole = [one for one in found if _subset(one) is None]
            if whole:
                return whole[0]
    return None


def _note(resource: Resource, winner: Resource) -> FieldNote:
    key = resource.key
    says = f"shadowed: the {winner.kind} {winner.key.namespace}/{winner.key.name} at {winner.origin} speaks of the same"
    left = ", and only the subsets it lacks are taken" if isinstance(resource.spec, DestinationRuleSpec) else ""
    path = show_path(("spec",))
    return FieldNote(
        resource.origin,
        key.kind,
        f"{key.namespace}/{key.name}",
        path,
        "ignored",
        f"{says} host, and a document goes before Consul's own configuration{left}",
    )
