"""What documents say of each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from meshlib.resources.destinations import DestinationRuleSpec
from meshlib.resources.documents import Origin, Path, Problem, Resource, ResourceKey, show_path
from meshlib.resources.names import aliases, fqdn
from meshlib.resources.networking import VirtualServiceSpec
from meshlib.resources.outbound import OutboundPolicySpec
from meshlib.resources.precedence import made
from meshlib.resources.security import PeerAuthenticationSpec

__all__ = ["Locate", "References", "check_references"]


class References(NamedTuple):
    """What `check_references` found.

    Attributes:
        errors: documents that can't work: a subset nobody defined, two documents of one name.
        warnings: documents that may not do what they seem to.
    """

    errors: list[Problem]
    warnings: list[Problem]


Locate = Callable[[Resource, Path], Origin]


class _Finding(NamedTuple):
    resource: Resource
    path: Path
    message: str


class _Rule(NamedTuple):
    """A DestinationRule, by the full name of its host."""

    resource: Resource
    host: str
    subsets: frozenset[str]


class _Use(NamedTuple):
    """A place that names a subset."""

    resource: Resource
    host: str
    subset: str
    path: Path


def _whole_document(resource: Resource, path: Path) -> Origin:
    return resource.origin


def _nowhere(host: str) -> bool:
    return False


def check_references(
    resources: Iterable[Resource], locate: Locate = _whole_document, elsewhere: Callable[[str], bool] = _nowhere
) -> References:
    """Checks that what the documents name is defined, and defined once.

    Services register while the mesh runs, so that a host no document mentions is no fault.

    Args:
        resources: every document that is to be in force.
        locate: where a path of a resource stands; without it problems name where the document begins.
        elsewhere: whether subsets of the host of this full name may be defined where it can't be seen. Asked of hosts
            with a subset that nobody defines.
    """
    every = tuple(resources)
    rules = [rule for resource in every for rule in _rules(resource)]
    by_host: defaultdict[str, list[_Rule]] = defaultdict(list)
    for rule in rules:
        for name in aliases(rule.host, ""):
            by_host[name].append(rule)
    uses = (use for resource in every for use in _uses(resource))
    undefined = (
        finding for use in uses if (finding := _undefined(use, by_host)) is not None and not elsewhere(use.host)
    )
    errors = [_problem(finding, locate) for finding in (*_same_name(every), *undefined)]
    written = [rule for rule in rules if not made(rule.resource)]
    return References(errors, [_problem(finding, locate) for finding in (*_same_host(written), *_same_scope(every))])


def _rules(resource: Resource) -> Iterator[_Rule]:
    spec = resource.spec
    if isinstance(spec, DestinationRuleSpec):
        host = fqdn(spec.host, resource.metadata.namespace)
        yield _Rule(resource, host, frozenset(subset.name for subset in spec.subsets))


def _uses(resource: Resource) -> Iterator[_Use]:
    spec, namespace = resource.spec, resource.metadata.namespace
    if isinstance(spec, OutboundPolicySpec) and spec.subset:
        yield _Use(resource, fqdn(spec.host, namespace), spec.subset, ("spec", "subset"))
    if isinstance(spec, OutboundPolicySpec):
        for index, one in enumerate(spec.failover):
            if one.subset:
                yield _Use(resource, fqdn(one.host, namespace), one.subset, ("spec", "failover", index, "subset"))
    if isinstance(spec, VirtualServiceSpec):
        for number, route in enumerate(spec.http):
            for index, share in enumerate(route.route):
                to = share.destination
                if to.subset:
                    path = ("spec", "http", number, "route", index, "destination", "subset")
                    yield _Use(resource, fqdn(to.host, namespace), to.subset, path)


def _undefined(use: _Use, by_host: Mapping[str, Sequence[_Rule]]) -> _Finding | None:
    names = [*aliases(use.host, ""), *_wildcards(use.host)]
    defined = {subset for name in names for rule in by_host.get(name, ()) for subset in rule.subsets}
    if use.subset in defined:
        return None
    known = (
        f"its DestinationRule defines {', '.join(sorted(defined)[:10])}" if defined else "no DestinationRule has any"
    )
    return _Finding(
        use.resource,
        use.path,
        f'"{use.subset}" of {use.host} is a subset nobody defined: {known};'
        f" add it to spec.subsets of a DestinationRule for {use.host}",
    )


def _wildcards(host: str) -> Iterator[str]:
    labels = host.split(".")
    yield from (".".join(["*", *labels[start:]]) for start in range(1, len(labels) + 1))


def _same_name(resources: Sequence[Resource]) -> Iterator[_Finding]:
    first: dict[ResourceKey, Resource] = {}
    for resource in resources:
        earlier = first.setdefault(resource.key, resource)
        if earlier is not resource:
            yield _Finding(resource, (), f"this kind and name stand at {earlier.origin} too; rename or remove one")


def _same_host(rules: Sequence[_Rule]) -> Iterator[_Finding]:
    first: dict[str, _Rule] = {}
    for rule in rules:
        earlier = first.setdefault(rule.host, rule)
        if earlier is not rule:
            key = earlier.resource.key
            message = f"the DestinationRule {key.namespace}/{key.name} is for {rule.host} too; join them into one"
            yield _Finding(rule.resource, ("spec", "host"), message)


def _same_scope(resources: Sequence[Resource]) -> Iterator[_Finding]:
    """PeerAuthentications without a selector, of which a namespace should have one."""
    first: dict[str, Resource] = {}
    for resource in sorted(resources, key=lambda one: one.key):
        spec, namespace = resource.spec, resource.metadata.namespace
        if isinstance(spec, PeerAuthenticationSpec) and not (spec.selector and spec.selector.match_labels):
            earlier = first.setdefault(namespace, resource)
            if earlier is not resource:
                message = (
                    f"{earlier.key.name} is for the whole of {namespace} too, and only that one, the first by name, is"
                    " in force (in Istio it is the older); join them into one"
                )
                yield _Finding(resource, ("spec",), message)


def _problem(finding: _Finding, locate: Locate) -> Problem:
    key = finding.resource.key
    origin = locate(finding.resource, finding.path)
    return Problem(origin, key.kind, f"{key.namespace}/{key.name}", show_path(finding.path), finding.message)
