"""What the plan says of requests coming in, and how it comes of PeerAuthentication documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from meshlib.resources import Intentions, PeerAuthenticationSpec, Resource

__all__ = ["ROOT_NAMESPACE", "Inbound", "Mode", "inbound_of"]

ROOT_NAMESPACE = "istio-system"
"""Where documents without a selector hold for the whole mesh: Istio's default root namespace."""

Mode = Literal["DISABLE", "PERMISSIVE", "STRICT"]


class Inbound(NamedTuple):
    """Immutable.

    Attributes:
        mode: PeerAuthentication's for this workload. Istio's default is PERMISSIVE.
        ports: the modes of single ports.
        intentions: who may call; None: no such system has a say.
    """

    mode: Mode = "PERMISSIVE"
    ports: Mapping[int, Mode] = {}
    intentions: Intentions | None = None

    def mode_of(self, port: int | None) -> Mode:
        """The mode of a port this process listens on; None: unknown."""
        return self.mode if port is None else self.ports.get(port, self.mode)


def inbound_of(
    resources: Iterable[Resource],
    intentions: Intentions | None,
    namespace: str,
    service: str | None,
    labels: Mapping[str, str],
) -> Inbound:
    """What holds for one process: a document that selects it goes before its namespace's, that before the mesh's.

    UNSET inherits from the next wider document. Of two that are equally narrow the first by name counts.

    Args:
        resources: of the snapshot.
        intentions: of the snapshot.
        namespace: of the process.
        service: its name; stands in for the label `app` where the process has none.
        labels: it wears.
    """
    wears = {"app": service, **labels} if service is not None else dict(labels)
    narrowest, by_namespace, by_mesh = _by_scope(resources, namespace, wears)
    mode: Mode = "PERMISSIVE"
    for spec in (by_mesh, by_namespace, narrowest):
        mode = _mode(spec.mtls.mode if spec is not None and spec.mtls is not None else "UNSET", mode)
    ports = narrowest.port_level_mtls if narrowest is not None else {}
    return Inbound(mode, {int(port): _mode(mtls.mode, mode) for port, mtls in ports.items()}, intentions)


def _by_scope(
    resources: Iterable[Resource], namespace: str, wears: Mapping[str, str]
) -> Sequence[PeerAuthenticationSpec | None]:
    """The document that selects the process, its namespace's and the mesh's."""
    found: list[PeerAuthenticationSpec | None] = [None, None, None]
    for resource in sorted(resources, key=lambda one: one.key):
        spec, home = resource.spec, resource.metadata.namespace
        if not isinstance(spec, PeerAuthenticationSpec):
            continue
        chosen = spec.selector.match_labels if spec.selector is not None else {}
        if not chosen and home == ROOT_NAMESPACE:
            scope = 2
        elif home == namespace and chosen.items() <= wears.items():
            scope = 0 if chosen else 1
        else:
            continue
        found[scope] = found[scope] or spec
    return found


def _mode(written: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"], otherwise: Mode) -> Mode:
    return otherwise if written == "UNSET" else written
