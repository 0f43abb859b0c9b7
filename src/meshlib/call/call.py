"""One call: what the flow knows of it, and the record of what became of it."""

from __future__ import annotations

from meshlib.errors import Attempt, Evidence
from meshlib.plan.cluster import Cluster
from meshlib.plan.route import HeaderOps, RoutePlan
from meshlib.policy.match import HeadView
from meshlib.policy.outcome import Failure
from meshlib.state.endpoint import EndpointState

__all__ = ["REPLAY_LIMIT", "Body", "Call"]

REPLAY_LIMIT = 65536
"""Bytes; a larger body is never sent again (Linkerd)."""


class Body:
    """The request's body, as far as sending it again is concerned.

    Attributes:
        buffered: its size in bytes where it is all there, None for a stream.
        touched: whether a stream was begun.
    """

    __slots__ = ("buffered", "touched")

    def __init__(self, buffered: int | None) -> None:
        self.buffered = buffered
        self.touched = False

    def replayable(self) -> bool:
        """Whether it can be sent from its start."""
        return not self.touched if self.buffered is None else self.buffered <= REPLAY_LIMIT

    def small(self) -> bool:
        """Whether sending it takes no time to speak of."""
        return self.buffered is not None and self.buffered <= REPLAY_LIMIT


EMPTY_BODY = Body(0)


Tried = tuple[EndpointState, int | Failure | None, float, float, str]
"""An attempt as the flow notes it: endpoint, status or failure (None: abandoned), begun, ended, kind."""


def _word(status: int | Failure | None) -> str:
    return "abandoned" if status is None else str(status)


class Call:
    """One request by the user. After it has ended this is the record of it.

    Attributes:
        host: the logical host, as the caller wrote it.
        idempotent: whether sending it twice does no harm.
        body: see `Body`.
        started: monotonic seconds.
        deadline: monotonic seconds; None: none.
        bounds_body: whether the deadline holds for the response's body too.
        version: of the plan it was routed by.
        route, cluster: where it went; None until it is decided.
        cluster_headers: the header changes of the weighted destination chosen.
        attempts: so far.
        tried: the endpoints they went to, for the next to avoid.
        head: of the request, for consistent hashing; None where nobody needs it.
        key: the hash by which its endpoint is chosen; None: any will do.
        set_cookie: the value of a `Set-Cookie` for the response, so that the next call has the same key.
    """

    __slots__ = (
        "attempts",
        "body",
        "bounds_body",
        "cluster",
        "cluster_headers",
        "deadline",
        "head",
        "host",
        "idempotent",
        "key",
        "route",
        "set_cookie",
        "started",
        "tried",
        "version",
    )

    def __init__(
        self,
        host: str,
        started: float,
        *,
        idempotent: bool = True,
        body: Body = EMPTY_BODY,
        deadline: float | None = None,
        version: str = "",
        head: HeadView | None = None,
    ) -> None:
        self.host = host
        self.head = head
        self.key: int | None = None
        self.set_cookie: bytes | None = None
        self.started = started
        self.idempotent = idempotent
        self.body = body
        self.deadline = deadline
        self.bounds_body = deadline is not None
        self.version = version
        self.route: RoutePlan | None = None
        self.cluster: Cluster | None = None
        self.cluster_headers: HeaderOps | None = None
        self.attempts: list[Tried] = []
        self.tried: list[EndpointState] = []

    def replayable(self) -> bool:
        """Whether the body can be sent from its start."""
        return self.body.replayable()

    def evidence(self, now: float) -> Evidence:
        """The record as it is shown to people, at `now`."""
        return Evidence(
            self.host,
            self.route.name if self.route else "",
            self.cluster.name if self.cluster else "",
            tuple(
                Attempt(endpoint.address, _word(status), begun - self.started, ended - begun, kind)
                for endpoint, status, begun, ended, kind in self.attempts
            ),
            self.version,
            now - self.started,
        )
