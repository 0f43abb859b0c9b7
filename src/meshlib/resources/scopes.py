"""For which processes a document holds, as far as documents tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from meshlib.resources.documents import Resource
from meshlib.resources.security import PeerAuthenticationSpec

__all__ = ["ROOT_NAMESPACE", "Scope", "Workload", "scope_of"]

ROOT_NAMESPACE = "istio-system"
"""Where documents hold for the whole mesh: Istio's default root namespace."""


class Workload(NamedTuple):
    """A process that is registered; `labels` with `app`, its service's name where it has no such label."""

    namespace: str
    labels: Mapping[str, str]


class Scope(NamedTuple):
    """The processes of a namespace, None: of the whole mesh, that wear some labels.

    Attributes:
        level: 0 for a selector, 1 for a namespace, 2 for the root namespace; the lower is the narrower.
    """

    namespace: str | None
    labels: Mapping[str, str]
    level: int

    def holds_for(self, workload: Workload) -> bool:
        """Whether the process is one of them."""
        return self.namespace in (None, workload.namespace) and self.labels.items() <= workload.labels.items()

    def covers(self, other: Scope) -> bool:
        """Whether every process of `other` is one of these, too."""
        return self.namespace in (None, other.namespace) and self.labels.items() <= other.labels.items()

    def may_meet(self, other: Scope) -> bool:
        """Whether a process could be of both: it would, as long as labels don't contradict each other."""
        apart = None not in (self.namespace, other.namespace) and self.namespace != other.namespace
        return not apart and all(other.labels.get(name, value) == value for name, value in self.labels.items())

    def meets(self, other: Scope, workloads: Iterable[Workload]) -> bool:
        """Whether some process is of both: one that is registered, or any because one scope is within the other."""
        within = self.covers(other) or other.covers(self)
        return within or any(self.holds_for(one) and other.holds_for(one) for one in workloads)

    def __str__(self) -> str:
        worn = ",".join(f"{name}={value}" for name, value in sorted(self.labels.items()))
        where = "the whole mesh" if self.namespace is None else f"namespace {self.namespace}"
        return f"processes of {where}{' with ' + worn if worn else ''}"


def scope_of(resource: Resource) -> Scope | None:
    """For whom a document with a selector holds, None: for a gateway, which is none of the processes here."""
    spec, home = resource.spec, resource.metadata.namespace
    if getattr(spec, "target_ref", None) or getattr(spec, "target_refs", ()):
        return None
    selector = getattr(spec, "selector", None)
    labels = selector.match_labels if selector is not None else {}
    # A PeerAuthentication with a selector holds in its own namespace only, also in the root namespace, as in Istio.
    if home == ROOT_NAMESPACE and not (labels and isinstance(spec, PeerAuthenticationSpec)):
        return Scope(None, labels, 2)
    return Scope(home, labels, 0 if labels else 1)
