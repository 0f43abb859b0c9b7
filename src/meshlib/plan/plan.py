"""The plan: everything a call needs to know, immutable, published by one store and read by one load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meshlib.plan.cluster import Cluster
from meshlib.plan.inbound import Inbound
from meshlib.plan.route import VirtualHost
from meshlib.resources.names import service_name

__all__ = ["DEFAULT_DEADLINE", "Plan"]

DEFAULT_DEADLINE = 15.0
"""Seconds for a call whose route has no timeout. Istio has none; a library that hangs for ever is worse, so this is
Envoy's. It holds up to the response head; a body may take as long as it keeps coming."""


class Plan:
    """A snapshot compiled for one namespace.

    Attributes:
        version: of the configuration.
        hosts: the virtual host of each name a caller may use, lower case.
        wildcards: (suffix, virtual host) with the longest suffix first, for hosts like `*.example.com`.
        clusters: by name.
        namespace: of the callers: which short names mean what.
        allow_any: whether hosts the mesh doesn't know pass through.
        asked: the full names of the hosts it speaks of, None: of all there are; see `Registry.want`.
        wanted: hosts that routes lead to and that were not asked for yet.
        inbound: what holds for requests coming in.
        passing: suffixes of hosts that pass through whatever `allow_any` says: wildcards without endpoints.
        secured: whether the DestinationRule for a host, in full or a wildcard, asks for TLS.
    """

    __slots__ = (
        "allow_any",
        "asked",
        "clusters",
        "hosts",
        "inbound",
        "namespace",
        "passing",
        "secured",
        "version",
        "wanted",
        "wildcards",
    )

    def __init__(
        self,
        version: str,
        hosts: Mapping[str, VirtualHost],
        wildcards: Sequence[tuple[str, VirtualHost]],
        clusters: Mapping[str, Cluster],
        *,
        namespace: str = "default",
        allow_any: bool = True,
        passing: Sequence[str] = (),
        asked: frozenset[str] | None = None,
        wanted: frozenset[str] = frozenset(),
        inbound: Inbound = Inbound(),  # noqa: B008 - an immutable tuple
        secured: Mapping[str, bool] = {},
    ) -> None:
        self.version = version
        self.hosts = hosts
        self.wildcards = tuple(wildcards)
        self.clusters = clusters
        self.namespace = namespace
        self.allow_any = allow_any
        self.passing = tuple(passing)
        self.asked = asked
        self.wanted = wanted
        self.inbound = inbound
        self.secured = secured

    def host(self, name: str, port: int) -> VirtualHost | None:
        """The virtual host for the host and port of a URL, or None when the mesh doesn't know it.

        Args:
            name: lower case, without the port.
            port: as the URL has it, the scheme's own where it names none.
        """
        found = self.hosts.get(name)
        if found is None:
            name = name.removesuffix(".")  # the absolute form of the same name
            found = self.hosts.get(name)
            if found is None and self.unasked(name) is None:
                found = next((host for suffix, host in self.wildcards if name.endswith(suffix)), None)
            if found is None:
                return None
        if found.ports is not None:
            return found.ports.get(port)
        return found

    def unasked(self, name: str) -> str | None:
        """The service that a host (lower case, without the port) may be and the registry wasn't asked for, in full."""
        if self.asked is None:
            return None
        service = service_name(name, self.namespace)
        return None if service is None or service in self.asked else service

    def passes(self, name: str, scheme: str = "https") -> bool:
        """Whether calls to a host the mesh doesn't know (lower case, without the port) pass through."""
        if self.keeps(name, scheme):
            return False
        return self.allow_any or name.removesuffix(".").endswith(self.passing)

    def keeps(self, name: str, scheme: str) -> bool:
        """Whether a host the mesh doesn't know isn't called in the clear, because its DestinationRule asks for TLS.

        That of `*` is for services, and not for all the internet.
        """
        if not self.secured or scheme in {"https", "wss"}:
            return False
        service = service_name(name, self.namespace)
        full = service or name.removesuffix(".")
        names = {full, f"{full}.svc.cluster.local"}  # the latter of `reviews.shop`, should that be a namespace
        fitting = [rule for rule in self.secured if rule in names or (rule[0] == "*" and full.endswith(rule[1:]))]
        # An exact name comes before any wildcard, and that before a shorter one.
        best = max(fitting, key=lambda rule: (rule[0] != "*", len(rule)), default="")
        return bool(best) and self.secured[best] and (best != "*" or service is not None)
