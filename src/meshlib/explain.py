"""Why a call would go where it goes: every rule that was a candidate, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from meshlib.plan.cluster import Cluster
from meshlib.plan.peers import PeerTls
from meshlib.plan.plan import Plan
from meshlib.plan.route import RoutePlan
from meshlib.policy.balance import FailoverPicker
from meshlib.policy.hashing import hash_of
from meshlib.policy.match import HeadView
from meshlib.policy.retry import IDEMPOTENT_METHODS
from meshlib.state.breaker import BreakerState
from meshlib.state.endpoint import EndpointState

__all__ = ["Candidate", "ClusterView", "EndpointView", "Explanation", "explain"]

SHOWN = 10
"""Known hosts that are named when the one asked for isn't among them."""


class Candidate(NamedTuple):
    """A route that was looked at: whether it was taken, and of each of its matches what failed."""

    route: str
    origin: str
    taken: bool
    failed: tuple[str, ...]


class EndpointView(NamedTuple):
    """An endpoint as the picker sees it.

    Attributes:
        excluded: why it isn't available, "" when it is.
        tls: how it is spoken to and who it has to be, "" in the clear.
    """

    address: str
    weight: int
    active: int
    cost: float
    excluded: str
    tls: str = ""


class ClusterView(NamedTuple):
    """A share of the split.

    Attributes:
        failover: the cluster that takes its calls now, "" for its own endpoints.
        affinity: of consistent hashing, what is hashed and where that leads, "" without it.
    """

    name: str
    share: float
    balancer: str
    breaker: str
    panic: bool
    endpoints: tuple[EndpointView, ...]
    total: int
    failover: str = ""
    affinity: str = ""


class Explanation(NamedTuple):
    """What `mesh.explain` found. `str()` is the readable form.

    Attributes:
        method, url: as asked.
        version: of the configuration in force.
        host: the virtual host, "" when the mesh doesn't know the URL's host.
        candidates: routes looked at, in order, up to the one taken.
        answer: what happens: `forward`, `redirect 301 …`, `direct response 200`, `pass through` and so on.
        clusters: where it can go.
        plan: deadline, retries, faults and the like, in words; for an unknown host, those that are known.
    """

    method: str
    url: str
    version: str
    host: str
    candidates: tuple[Candidate, ...]
    answer: str
    clusters: tuple[ClusterView, ...]
    plan: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.method} {self.url}   (configuration {self.version})"
        if not self.host:
            yield f"the mesh doesn't know this host → {self.answer}"
            yield from self.plan
            return
        yield f"host      {self.host}"
        for candidate in self.candidates:
            mark = "✓" if candidate.taken else "✗"
            origin = f"   {candidate.origin}" if candidate.origin else ""
            yield f"route   {mark} {candidate.route}{origin}"
            for failed in candidate.failed:
                yield f"            {failed}"
        yield f"answer    {self.answer}"
        for line in self.plan:
            yield f"          {line}"
        for cluster in self.clusters:
            yield from _cluster_lines(cluster)


def _cluster_lines(cluster: ClusterView) -> Iterator[str]:
    notes = [cluster.balancer, f"{len(cluster.endpoints)} of {cluster.total} endpoints"]
    notes += [f"breaker {cluster.breaker}"] if cluster.breaker else []
    notes += ["PANIC: health is ignored"] if cluster.panic else []
    yield f"cluster   {cluster.share:5.1f} %  {cluster.name}   ({', '.join(notes)})"
    if cluster.failover:
        yield f"            none of its own endpoints is available: calls go to {cluster.failover}"
    if cluster.affinity:
        yield f"            {cluster.affinity}"
    if not cluster.endpoints:
        why = f"none of {cluster.total} wears the subset's labels" if cluster.total else "no instance is registered"
        yield f"            nobody serves it ({why}): its calls raise NoEndpoints"
    for endpoint in cluster.endpoints:
        why = f"   excluded: {endpoint.excluded}" if endpoint.excluded else ""
        figures = f"weight {endpoint.weight}  in flight {endpoint.active}  cost {endpoint.cost:.4g}"
        tls = f"   {endpoint.tls}" if endpoint.tls else ""
        yield f"            {endpoint.address:24} {figures}{tls}{why}"


def explain(plan: Plan, method: str, url: str, headers: Mapping[str, str], now: float) -> Explanation:
    """Explain one request by the plan in force.

    Args:
        plan: in force.
        method: of the request.
        url: absolute.
        headers: of the request.
        now: monotonic seconds.

    Raises:
        ValueError: the URL is not absolute.
    """
    parts = urlsplit(url)
    if not parts.scheme or not parts.hostname:
        raise ValueError(f"{url!r} is not an absolute URL; write it as the client would get it, e.g. http://reviews/42")
    method = method.upper()
    virtual = plan.host(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    if virtual is None:
        kept = plan.keeps(parts.hostname, parts.scheme)
        why = "its DestinationRule asks for TLS" if kept else "MESHLIB_OUTBOUND is registry-only"
        answer = "pass through" if plan.passes(parts.hostname, parts.scheme) else f"refuse ({why})"
        return Explanation(method, url, plan.version, "", (), answer, (), (_known(plan),))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
    head = HeadView(method, target.encode(), parts.netloc.rpartition("@")[2], raw_headers)
    candidates: list[Candidate] = []
    taken: RoutePlan | None = None
    for route in virtual.routes:
        failed = () if route.matching(head) is not None else tuple(_failures(route, head))
        candidates.append(Candidate(route.name, route.origin, not failed, failed))
        if not failed:
            taken = route
            break
    clusters = tuple(_clusters(taken, head, now)) if taken is not None else ()
    return Explanation(
        method, url, plan.version, virtual.host, tuple(candidates), _answer(taken), clusters,
        tuple(_plan_lines(taken, head)) if taken is not None else (),
    )  # fmt: skip


def _known(plan: Plan) -> str:
    names = sorted({virtual.host for virtual in plan.hosts.values()})
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"it knows {', '.join(names[:SHOWN]) or 'nobody: nothing is registered, and no document names a host'}{more}"


def _failures(route: RoutePlan, head: HeadView) -> Iterator[str]:
    for number, match in enumerate(route.matches, 1):
        missed = [predicate.says for predicate in match.predicates if not predicate.holds(head)]
        yield f"match {number}: {' and '.join(missed)} didn't hold"


def _answer(route: RoutePlan | None) -> str:
    if route is None:
        return "no route matches (404)"
    if route.direct is not None:
        return f"direct response {route.direct.status}"
    if route.redirect is not None:
        return f"redirect {route.redirect.status} to {route.redirect.authority or ''}{route.redirect.uri or ''}"
    return "forward"


def _plan_lines(route: RoutePlan, head: HeadView) -> Iterator[str]:
    if not route.split.clusters:
        return
    covers = "the whole response" if route.explicit else "up to the response head"
    yield f"deadline {route.timeout:g} s, {covers}" if route.timeout is not None else "no deadline of its own"
    if route.retry is None:
        yield "no retries"
    else:
        per_try = f", {route.retry.per_try_timeout:g} s each" if route.retry.per_try_timeout is not None else ""
        yield f"up to {route.retry.attempts} retries on {route.retry.words}{per_try}"
        if head.method not in IDEMPOTENT_METHODS and head.header(b"idempotency-key") is None:
            yield f"{head.method} is not idempotent: retried only if nothing was sent, unless it has an Idempotency-Key"
    fault = route.fault
    if fault is not None and fault.delay_share:
        yield f"fault: {fault.delay_share:.0%} of calls wait {fault.delay:g} s"
    if fault is not None and fault.abort_share:
        yield f"fault: {fault.abort_share:.0%} of calls are answered {fault.abort_status}"
    for rewrite in route.rewrites[:1]:
        yield f"rewrite: uri {rewrite.uri or 'kept'}, authority {rewrite.authority or 'kept'}"
    hedge = route.split.clusters[0].hedge
    if hedge is not None:
        when = f"{hedge.delay:g} s" if hedge.delay is not None else f"the p{hedge.percentile:g} of latency"
        yield f"hedge after {when}, at most {hedge.budget.percent:g} % of calls"


def _clusters(route: RoutePlan, head: HeadView, now: float) -> Iterator[ClusterView]:
    whole = sum(route.split.weights)
    for cluster, weight in zip(route.split.clusters, route.split.weights, strict=True):
        picker = cluster.picker
        state = cluster.state.breaker.state
        breaker = state.value if cluster.breaker is not None or state is not BreakerState.CLOSED else ""
        endpoints = tuple(_endpoint(cluster, endpoint, now) for endpoint in cluster.endpoints)
        panic = bool(endpoints) and picker.panicking(now)
        used, total = cluster.name, cluster.total
        if isinstance(picker, FailoverPicker):
            used = picker.in_use(now)
            total += len(picker.states) - len(picker.tiers[cluster.name].states)
        yield ClusterView(
            cluster.name,
            100.0 * weight / whole,
            picker.name,
            breaker,
            panic,
            endpoints,
            total,
            used if used != cluster.name else "",
            _affinity(cluster, head, now),
        )


def _affinity(cluster: Cluster, head: HeadView, now: float) -> str:
    """What the request is hashed by, and the endpoint that this leads to."""
    if cluster.hash_key is None:
        return ""
    value = cluster.hash_key.value(head)
    by = f"calls alike in {cluster.hash_key} go to one endpoint"
    if value is None:
        made = cluster.hash_key.ttl is not None
        return f"{by}; this one has none of it: " + ("a cookie is made for it" if made else "any endpoint will do")
    endpoint = cluster.picker.pick(now, (), hash_of(value.encode()))
    return f"{by}; this one's is {endpoint.address}" if endpoint is not None else by


def _endpoint(cluster: Cluster, endpoint: EndpointState, now: float) -> EndpointView:
    picker = cluster.picker
    excluded = ""
    if isinstance(picker, FailoverPicker) and endpoint not in picker.tiers[picker.in_use(now)].weights:
        excluded = f"of {picker.home(endpoint)}, which isn't in use"
    if endpoint not in picker.healthy:
        excluded = "unhealthy by the registry's word"
    elif endpoint.ejected_until > now:
        excluded = f"ejected for another {endpoint.ejected_until - now:.1f} s"
    return EndpointView(
        endpoint.address,
        picker.weights[endpoint],
        endpoint.active,
        picker.cost(endpoint, now),
        excluded,
        _tls(cluster.peers.get((endpoint.host, endpoint.port))),
    )


def _tls(peer: PeerTls | None) -> str:
    if peer is None:
        return ""
    if not peer.verify:
        return f"{peer.mode}, whoever it is"
    return f"{peer.mode} as {' or '.join(peer.names) or peer.sni}"
