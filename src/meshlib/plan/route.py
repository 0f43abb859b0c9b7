"""Routes and virtual hosts as the plan holds them."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from meshlib.plan.cluster import Cluster
from meshlib.policy.match import HeadView, Match
from meshlib.policy.outcome import LocalReply
from meshlib.policy.retry import DEFAULT_RETRY, RetryPolicy
from meshlib.resources import HTTPFaultInjection

__all__ = [
    "Fault",
    "HeaderChange",
    "HeaderOps",
    "Redirect",
    "Rewrite",
    "RoutePlan",
    "Split",
    "VirtualHost",
    "compile_fault",
]

RawHeaders = list[tuple[bytes, bytes]]


class HeaderChange(NamedTuple):
    """What `headers` asks for in one direction: remove takes out, then set replaces and add appends (Envoy's order)."""

    set: tuple[tuple[bytes, bytes], ...] = ()
    add: tuple[tuple[bytes, bytes], ...] = ()
    remove: frozenset[bytes] = frozenset()

    def apply(self, headers: RawHeaders) -> RawHeaders:
        """A new list of raw headers."""
        gone = self.remove | {name.lower() for name, _ in self.set}
        kept = [pair for pair in headers if pair[0].lower() not in gone]
        return [*kept, *self.set, *self.add]


class HeaderOps(NamedTuple):
    """Changes on the way out and on the way back; None is nothing to do."""

    request: HeaderChange | None
    response: HeaderChange | None


class Fault(NamedTuple):
    """An injected fault: a delay and an abort, each for a share of calls (0 to 1). Delay comes first, as in Envoy."""

    delay: float = 0.0
    delay_share: float = 0.0
    abort_status: int = 0
    abort_share: float = 0.0


def compile_fault(fault: HTTPFaultInjection | None) -> Fault | None:
    """The fault with its shares from 0 to 1; None: it is for no call."""
    if fault is None:
        return None
    delay, abort = fault.delay, fault.abort
    compiled = Fault(
        delay.fixed_delay if delay is not None else 0.0,
        delay.share / 100.0 if delay is not None else 0.0,
        (abort.http_status or 0) if abort is not None else 0,
        abort.share / 100.0 if abort is not None else 0.0,
    )
    return compiled if compiled.delay_share or compiled.abort_share else None


class Rewrite(NamedTuple):
    """`rewrite`: the prefix that matched is replaced; where another match did, the whole path is."""

    uri: str | None
    authority: str | None
    prefix: str | None

    def target(self, target: str) -> str:
        """The path and query to send instead."""
        if self.uri is None:
            return target
        path, mark, query = target.partition("?")
        if self.prefix is not None and path.startswith(self.prefix):
            path = self.uri + path[len(self.prefix) :]
        else:
            path = self.uri
        return path + mark + query


class Redirect(NamedTuple):
    """`redirect`: answered on the spot."""

    status: int
    uri: str | None
    authority: str | None

    def reply(self, scheme: str, head: HeadView) -> LocalReply:
        """The response, with the query kept as Envoy keeps it."""
        path, mark, query = head.target.partition("?")
        location = f"{scheme}://{self.authority or head.authority}{self.uri or path}{mark}{query}"
        return LocalReply(self.status, [(b"location", location.encode("ascii", "ignore")), (b"content-length", b"0")])


class Split(NamedTuple):
    """How a route divides its traffic among clusters."""

    clusters: tuple[Cluster, ...]
    weights: tuple[int, ...]
    cumulative: tuple[int, ...]
    headers: tuple[HeaderOps | None, ...]

    def choose(self, random: Callable[[], float]) -> int:
        """The index of the cluster for one call."""
        if len(self.clusters) == 1:
            return 0
        return bisect.bisect_right(self.cumulative, random() * self.cumulative[-1])


NO_SPLIT = Split((), (), (), ())


class RoutePlan:
    """One ordered rule of a virtual host, compiled. What a feature left off costs is one `is None`.

    Attributes:
        name: the route's name in the document, or `host[number]`.
        host: the virtual host's name.
        matches: any of them must hold; empty: matches everything.
        timeout: seconds for the whole call; None: no bound of its own.
        explicit: whether somebody asked for the timeout, so that it covers the response's body too.
        origin: the document it came from, for explaining.
    """

    __slots__ = (
        "direct",
        "explicit",
        "fault",
        "headers",
        "host",
        "matches",
        "name",
        "origin",
        "redirect",
        "retry",
        "rewrites",
        "split",
        "timeout",
    )

    def __init__(
        self,
        name: str,
        host: str,
        *,
        matches: tuple[Match, ...] = (),
        split: Split = NO_SPLIT,
        timeout: float | None = None,
        explicit: bool = False,
        retry: RetryPolicy | None = DEFAULT_RETRY,
        fault: Fault | None = None,
        headers: HeaderOps | None = None,
        rewrites: tuple[Rewrite, ...] = (),
        redirect: Redirect | None = None,
        direct: LocalReply | None = None,
        origin: str = "",
    ) -> None:
        self.name = name
        self.host = host
        self.matches = matches
        self.split = split
        self.timeout = timeout
        self.explicit = explicit
        self.retry = retry
        self.fault = fault
        self.headers = headers
        self.rewrites = rewrites
        self.redirect = redirect
        self.direct = direct
        self.origin = origin

    def matching(self, head: HeadView) -> int | None:
        """The index of the first match that holds (0 for a route that takes everything), or None."""
        if not self.matches:
            return 0
        for index, match in enumerate(self.matches):
            if match.holds(head):
                return index
        return None


class VirtualHost:
    """The route table of one host.

    Attributes:
        host: fully qualified.
        routes: in order; the first that matches is taken.
        ports: None, or the table of each port, for a host that has several.
    """

    __slots__ = ("host", "ports", "routes", "simple")

    def __init__(self, host: str, routes: Sequence[RoutePlan], ports: Mapping[int, VirtualHost] | None = None) -> None:
        self.host = host
        self.routes = tuple(routes)
        self.ports = ports
        only = self.routes[0] if self.routes else None
        self.simple = only if only is not None and not only.matches else None

    def route(self, head: HeadView) -> RoutePlan | None:
        """The first route that matches."""
        for route in self.routes:
            if not route.matches:
                return route
            for match in route.matches:
                if match.holds(head):
                    return route
        return None
