"""Compiling the `corsPolicy` of VirtualServices whose host is this service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from meshlib.plan.matches import compile_match
from meshlib.policy.match import HeadView, Match, Test, string_test
from meshlib.resources import CorsPolicy, Resource, StringMatch, VirtualServiceSpec, fqdn

__all__ = ["Cors", "CorsRule", "cors_of"]

RawHeaders = tuple[tuple[bytes, bytes], ...]


class CorsRule(NamedTuple):
    """One `corsPolicy`.

    Attributes:
        origins: tests of the `origin` header.
        preflight: headers for a preflight of an origin that is allowed, besides the origin.
        actual: headers for another response to it, besides the origin.
        forwards: whether the application answers the preflights of other origins. Envoy's default.
    """

    origins: tuple[Test, ...]
    preflight: RawHeaders
    actual: RawHeaders
    forwards: bool

    def allows(self, origin: str) -> bool:
        """Whether `origin` may ask."""
        return any(test(origin) for test in self.origins)


class Cors(NamedTuple):
    """The routes to this service in order, each with its policy or None; the first that matches counts."""

    routes: tuple[tuple[tuple[Match, ...], CorsRule | None], ...]

    def fitting(self, head: HeadView) -> CorsRule | None:
        """The policy for a request."""
        for matches, rule in self.routes:
            if not matches or any(match.holds(head) for match in matches):
                return rule
        return None


def cors_of(resources: Iterable[Resource], namespace: str, service: str | None) -> Cors | None:
    """What VirtualServices say of requests from other origins to one service; None: nothing.

    Args:
        resources: every document.
        namespace: of the service.
        service: its name; None: a pure client, whom nobody asks.
    """
    if service is None:
        return None
    routes = tuple(_routes(list(resources), fqdn(service, namespace)))
    return Cors(routes) if any(rule is not None for _, rule in routes) else None


def _routes(resources: list[Resource], host: str) -> Iterator[tuple[tuple[Match, ...], CorsRule | None]]:
    """Of the VirtualServices for `host`, without any of those for the longest wildcard that covers it."""
    covering = [name for one in resources for name in _hosts(one) if name == host or _covers(name, host)]
    chosen = host if host in covering else max(covering, key=len, default="")
    for one in resources:
        if chosen in _hosts(one):
            assert isinstance(one.spec, VirtualServiceSpec)
            for route in one.spec.http:
                matches = tuple(compile_match(match) for match in route.match)
                yield matches, _rule(route.cors_policy) if route.cors_policy is not None else None


def _hosts(resource: Resource) -> set[str]:
    spec = resource.spec
    if not isinstance(spec, VirtualServiceSpec) or (spec.gateways and "mesh" not in spec.gateways):
        return set()
    return {fqdn(written, resource.metadata.namespace) for written in spec.hosts}


def _covers(wildcard: str, host: str) -> bool:
    return wildcard.startswith("*") and host.endswith(wildcard[1:])


def _rule(policy: CorsPolicy) -> CorsRule:
    credentials = ((b"access-control-allow-credentials", b"true"),) if policy.allow_credentials else ()
    preflight = (
        *credentials,
        *_listed(b"access-control-allow-methods", policy.allow_methods),
        *_listed(b"access-control-allow-headers", policy.allow_headers),
    )
    if policy.max_age is not None:
        preflight = (*preflight, (b"access-control-max-age", b"%d" % policy.max_age))
    return CorsRule(
        tuple(_origin(one) for one in policy.allow_origins),
        preflight,
        (*credentials, *_listed(b"access-control-expose-headers", policy.expose_headers)),
        policy.unmatched_preflights != "IGNORE",
    )


def _origin(match: StringMatch) -> Test:
    if match.exact == "*":  # any, as in Envoy
        return lambda origin: True
    return string_test(match.exact, match.prefix, match.regex)[1]


def _listed(name: bytes, values: tuple[str, ...]) -> RawHeaders:
    return ((name, ",".join(values).encode()),) if values else ()
