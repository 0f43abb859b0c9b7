"""Compiling the routes of a host from VirtualServices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from meshlib.plan.cluster import Cluster
from meshlib.plan.clusters import Clusters
from meshlib.plan.hosts import Host
from meshlib.plan.matches import compile_match
from meshlib.plan.plan import DEFAULT_DEADLINE
from meshlib.plan.route import HeaderChange, HeaderOps, Redirect, Rewrite, RoutePlan, Split, VirtualHost, compile_fault
from meshlib.policy.outcome import LocalReply
from meshlib.policy.retry import DEFAULT_RETRY, DEFAULT_WORDS, RetryPolicy
from meshlib.policy.strategy import RetryStrategy
from meshlib.resources import (
    HeaderOperations,
    Headers,
    HTTPDirectResponse,
    HTTPRetry,
    HTTPRoute,
    Resource,
    VirtualServiceSpec,
    fqdn,
)

__all__ = ["Routes", "Rules"]

Rules = list[tuple[Resource, VirtualServiceSpec]]


class Routes:
    """Makes the virtual hosts of one plan.

    Args:
        clusters: of the plan.
        strategy: the user's own way to wait and stop.
    """

    def __init__(self, clusters: Clusters, strategy: RetryStrategy | None) -> None:
        self._clusters = clusters
        self._strategy = strategy
        self._default_retry = _retry(None, strategy)

    def virtual_host(self, host: str, known: Host | None, rules: Rules) -> VirtualHost:
        """The route table of a host, one for each of its ports where it has several."""
        ports = sorted(known.ports) if known is not None else [0]
        if len(ports) == 1:
            return VirtualHost(host, list(self._routes(host, rules, ports[0])))
        tables = {port: VirtualHost(host, list(self._routes(host, rules, port))) for port in ports if port}
        return VirtualHost(host, (), tables)

    def _routes(self, host: str, rules: Rules, port: int) -> Iterator[RoutePlan]:
        """The rules in order. A host with rules of which none matches has no route, as in Envoy (404)."""
        if not any(spec.http for _, spec in rules):
            cluster = self._clusters.get(host, None, None, port)
            timeout, explicit = _timeout(None, [cluster])
            split = _split([cluster], [1], [None])
            retry = self._default_retry
            yield RoutePlan("default", host, split=split, timeout=timeout, explicit=explicit, retry=retry)
            return
        for resource, spec in rules:
            for index, http in enumerate(spec.http):
                yield self._route(f"{resource.metadata.name}[{http.name or index}]", host, resource, http, port)

    def _route(self, name: str, host: str, resource: Resource, http: HTTPRoute, port: int) -> RoutePlan:
        namespace = resource.metadata.namespace
        targets = [
            self._clusters.get(
                fqdn(one.destination.host, namespace),
                one.destination.subset,
                one.destination.port.number if one.destination.port is not None else None,
                port,
            )
            for one in http.route
        ]
        weights = [one.weight for one in http.route] if len(http.route) > 1 else [1] * len(http.route)
        timeout, explicit = _timeout(http.timeout, targets)
        return RoutePlan(
            name,
            host,
            matches=tuple(compile_match(match) for match in http.match),
            split=_split(targets, weights, [_header_ops(one.headers) for one in http.route]),
            timeout=timeout,
            explicit=explicit,
            retry=_retry(http.retries, self._strategy),
            fault=compile_fault(http.fault),
            headers=_header_ops(http.headers),
            rewrites=_rewrites(http),
            redirect=_redirect(http),
            direct=_direct(http.direct_response),
            origin=str(resource.origin),
        )


def _split(clusters: Sequence[Cluster], weights: Sequence[int], headers: Sequence[HeaderOps | None]) -> Split:
    """Destinations of weight 0 get nothing, so they aren't there."""
    kept = [entry for entry in zip(clusters, weights, headers, strict=True) if entry[1] > 0]
    return Split(
        tuple(cluster for cluster, _, _ in kept),
        tuple(weight for _, weight, _ in kept),
        tuple(accumulate(weight for _, weight, _ in kept)),
        tuple(ops for _, _, ops in kept),
    )


def _timeout(route: float | None, clusters: Sequence[Cluster]) -> tuple[float | None, bool]:
    """(seconds for the call, whether somebody asked for it): the route's, else the OutboundPolicy's, else 15 s."""
    if route is not None:
        return route or None, True
    asked = [cluster.deadline for cluster in clusters if cluster.deadline is not None]
    return (min(asked), True) if asked else (DEFAULT_DEADLINE, False)


def _retry(retries: HTTPRetry | None, strategy: RetryStrategy | None) -> RetryPolicy | None:
    if retries is None:
        return DEFAULT_RETRY if strategy is None else RetryPolicy(2, DEFAULT_WORDS, strategy=strategy)
    if retries.attempts == 0:
        return None
    return RetryPolicy(
        DEFAULT_RETRY.attempts if retries.attempts is None else retries.attempts,
        retries.retry_on or DEFAULT_WORDS,
        per_try_timeout=retries.per_try_timeout or None,
        base=retries.backoff,
        avoid_tried=retries.retry_ignore_previous_hosts is not False,
        strategy=strategy,
    )


def _header_ops(headers: Headers | None) -> HeaderOps | None:
    if headers is None:
        return None
    request, response = _header_change(headers.request), _header_change(headers.response)
    return HeaderOps(request, response) if request is not None or response is not None else None


def _header_change(operations: HeaderOperations | None) -> HeaderChange | None:
    if operations is None:
        return None
    return HeaderChange(
        tuple((_header_name(name), value.encode()) for name, value in operations.set.items()),
        tuple((name.encode(), value.encode()) for name, value in operations.add.items()),
        frozenset(name.lower().encode() for name in operations.remove),
    )


def _header_name(name: str) -> bytes:
    """As HTTP/1.1 has it: `:authority`, which Istio's documents may set, is HTTP/2's name for the host."""
    return b"host" if name.lower() == ":authority" else name.encode()


def _rewrites(http: HTTPRoute) -> tuple[Rewrite, ...]:
    """One for each match (or for the lack of one): what is replaced depends on which of them matched."""
    if http.rewrite is None:
        return ()
    prefixes = [match.uri.prefix if match.uri is not None else "/" for match in http.match] or ["/"]
    return tuple(Rewrite(http.rewrite.uri, http.rewrite.authority, prefix) for prefix in prefixes)


def _redirect(http: HTTPRoute) -> Redirect | None:
    redirect = http.redirect
    return Redirect(redirect.redirect_code, redirect.uri, redirect.authority) if redirect is not None else None


def _direct(direct: HTTPDirectResponse | None) -> LocalReply | None:
    if direct is None:
        return None
    body = b""
    if direct.body is not None:
        body = direct.body.bytes if direct.body.bytes is not None else (direct.body.string or "").encode()
    return LocalReply(direct.status, [(b"content-length", str(len(body)).encode())], body)
