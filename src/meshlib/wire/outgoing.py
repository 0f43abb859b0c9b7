"""One user request on its way out: what the sync and the async transport have in common.

Nothing here waits. A request becomes an `Outgoing` (its call, and the parts of the wire's request that don't change
between attempts); an outcome becomes a response's parts or an exception.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from meshlib import errors
from meshlib.call.call import Body, Call
from meshlib.call.effects import Failure, LocalReply, Outcome, Send
from meshlib.context import (
    ATTEMPT_HEADER,
    DEADLINE_HEADER,
    INHERITED,
    OVERLOADED_HEADER,
    PASSED_ON,
    PRIORITY_HEADER,
    Inherited,
)
from meshlib.plan.plan import Plan
from meshlib.plan.route import RoutePlan
from meshlib.policy.match import HeadView
from meshlib.policy.retry import IDEMPOTENT_METHODS
from meshlib.wire.message import Request, RequestBody, Timing

__all__ = [
    "AsyncStream",
    "Outgoing",
    "SyncStream",
    "local_reply",
    "outgoing",
    "raise_failure",
    "retry_after",
    "unknown_host",
]

RawHeaders = list[tuple[bytes, bytes]]
EXTENSION = "meshlib"
OURS = frozenset((DEADLINE_HEADER, ATTEMPT_HEADER))
"""Headers that say what this call is; what a caller copied from another must not stand beside them."""
OUR_LENGTHS = frozenset(map(len, OURS))

NO_ROUTE = RoutePlan("none", "")
NOT_FOUND = LocalReply(404, ((b"content-length", b"0"),))
"""What Envoy answers when no route of a known host matches."""

ERRORS: dict[Failure, tuple[type[errors.CallError], str]] = {
    Failure.CONNECT: (errors.ConnectFailed, "no connection to {host} could be opened: {why}"),
    Failure.CONNECT_TIMEOUT: (errors.ConnectTimedOut, "no connection to {host} was opened in time"),
    Failure.TLS: (errors.ConnectFailed, "no connection to {host} could be secured: {why}"),
    Failure.RESET: (errors.ConnectionBroken, "the connection to {host} broke before a response came: {why}"),
    Failure.TIMEOUT: (errors.AttemptTimeout, "{host} didn't answer within the time of one attempt"),
    Failure.PROTOCOL: (errors.BadResponse, "what {host} answered is not HTTP: {why}"),
    Failure.NO_ENDPOINTS: (errors.NoEndpoints, "nobody serves {cluster}: {nobody}"),
    Failure.CIRCUIT_OPEN: (errors.CircuitOpen, "the circuit breaker of {cluster} is open"),
    Failure.OVERFLOW: (errors.Overflow, "{cluster} has as many requests in flight as its connectionPool allows"),
    Failure.DEADLINE: (errors.DeadlineExceeded, "the deadline of the call to {host} ran out"),
}


class Outgoing:
    """A request by the user and the call made of it.

    Attributes:
        client: httpx or httpx2.
        request: the client's request; it isn't changed.
        scheme: of its URL.
        call: what the flow knows.
        route: what the plan says.
        local: the reply to give without a call, or None; without it there is a route.
        body: what is sent, as bytes or in pieces; None: no body.
    """

    __slots__ = (
        "_headers",
        "_inherited",
        "_target",
        "_timeouts",
        "body",
        "call",
        "client",
        "head",
        "local",
        "request",
        "route",
        "scheme",
    )

    def __init__(
        self,
        client: ModuleType,
        request: Any,
        scheme: str,
        call: Call,
        route: RoutePlan,
        head: HeadView,
        inherited: Inherited,
    ) -> None:
        self.client = client
        self.request = request
        self.scheme = scheme
        self.call = call
        self.route = route
        self.head = head
        self.local: LocalReply | None = None
        self.body: RequestBody = None
        self._inherited = inherited
        self._headers: RawHeaders | None = None
        self._target = head.raw_target
        self._timeouts: dict[str, float | None] = request.extensions.get("timeout") or {}

    def timing(self, send: Send) -> Timing:
        """The bounds of one attempt: the mesh's and the client's own, whichever is less."""
        timeouts = self._timeouts
        connect = timeouts.get("connect")
        if connect is None or send.connect_timeout < connect:
            connect = send.connect_timeout
        body_by = self.call.deadline if self.call.bounds_body else None
        return Timing(connect, send.expires, timeouts.get("read"), timeouts.get("write"), body_by)

    def wire_request(self, send: Send, now: float) -> Request:
        """What goes over the wire on one attempt."""
        if self._headers is None:
            self._prepare()
        headers: RawHeaders = self._headers or []
        call = self.call
        if call.deadline is not None:
            left = int((call.deadline - now) * 1000)
            headers = [*headers, (DEADLINE_HEADER, b"%d" % (left if left > 0 else 1))]
        if send.attempt > 1 or self._inherited.attempt > 1:
            attempt = max(send.attempt, self._inherited.attempt)
            headers = [*headers, (ATTEMPT_HEADER, b"%d" % attempt)]
        resend = call.idempotent and call.body.buffered is not None
        return Request(self.head.method.encode("ascii"), self._target, headers, self.body, resend=resend)

    def response_headers(self, headers: RawHeaders) -> RawHeaders:
        """The response's headers, changed as the route asks, and with the cookie that the call was given a key by."""
        if self.call.set_cookie is not None:
            headers = [*headers, (b"set-cookie", self.call.set_cookie)]
        if self.route.headers is None and self.call.cluster_headers is None:
            return headers
        for ops in (self.route.headers, self.call.cluster_headers):
            if ops is not None and ops.response is not None:
                headers = ops.response.apply(headers)
        return headers

    def _prepare(self) -> None:
        """Work out what is the same on every attempt: the target, and most headers."""
        route = self.route
        headers: RawHeaders = self.head.raw_headers
        for name, _ in headers:
            if len(name) in OUR_LENGTHS and name.lower() in OURS:
                headers = [pair for pair in headers if pair[0].lower() not in OURS]
                break
        priority = self._inherited.priority
        if priority and not any(name.lower() == PRIORITY_HEADER for name, _ in headers):
            headers = [*headers, (PRIORITY_HEADER, priority.encode())]
        if self._inherited.trace and PASSED_ON.isdisjoint(name.lower() for name, _ in headers):
            headers = [*headers, *self._inherited.trace]
        if route.headers is not None or self.call.cluster_headers is not None:
            for ops in (route.headers, self.call.cluster_headers):
                if ops is not None and ops.request is not None:
                    headers = ops.request.apply(headers)
        if route.rewrites:
            rewrite = route.rewrites[route.matching(self.head) or 0]
            self._target = rewrite.target(self.head.target).encode("ascii")
            if rewrite.authority is not None:
                host = (b"host", rewrite.authority.encode("ascii"))
                headers = [host, *(pair for pair in headers if pair[0].lower() != b"host")]
        self._headers = headers


class Stream:
    """A streamed body that notes when it is begun: from then on it can't be sent again."""

    __slots__ = ("_body", "_stream")

    def __init__(self, body: Body, stream: Any) -> None:
        self._body = body
        self._stream = stream


class SyncStream(Stream):
    """For the sync transport."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        self._body.touched = True
        return iter(self._stream)


class AsyncStream(Stream):
    """For the async transport."""

    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._body.touched = True
        return aiter(self._stream)


def outgoing(
    plan: Plan, request: Any, now: float, client: ModuleType, stream_type: type[SyncStream | AsyncStream]
) -> Outgoing | None:
    """The request as the mesh sees it, or None when the mesh doesn't know its host.

    Args:
        plan: in force now; the call keeps it to its end.
        request: httpx's request.
        now: monotonic seconds.
        client: httpx or httpx2.
        stream_type: how a streamed body is wrapped.
    """
    url = request.url
    host = url.raw_host.decode("ascii")  # as documents name it: `url.host` has umlauts where this has `xn--`
    scheme = url.scheme
    virtual = plan.hosts.get(host)
    if virtual is None or virtual.ports is not None:  # a wildcard, perhaps, or one of several ports
        virtual = plan.host(host, url.port or (443 if scheme == "https" else 80))
    if virtual is None:
        return None
    inherited = INHERITED.get()
    head = HeadView(request.method, url.raw_path, host, request.headers.raw)
    idempotent = head.method in IDEMPOTENT_METHODS or head.header(b"idempotency-key") is not None
    options = request.extensions.get(EXTENSION)
    if options is not None:
        idempotent = options.get("idempotent", idempotent)
    call = Call(host, now, idempotent=idempotent, deadline=inherited.deadline, version=plan.version, head=head)

    route = virtual.simple or virtual.route(head)
    found = Outgoing(client, request, scheme, call, route or NO_ROUTE, head, inherited)
    if route is None:
        found.local = NOT_FOUND
    elif route.direct is not None:
        found.local = route.direct
    elif route.redirect is not None:
        found.local = route.redirect.reply(scheme, head)
    else:
        _take_body(found, stream_type)
    return found


def _take_body(found: Outgoing, stream_type: type[SyncStream | AsyncStream]) -> None:
    call, stream = found.call, found.request.stream
    if not isinstance(stream, found.client.ByteStream):
        call.body = Body(None)
        found.body = stream_type(call.body, stream)
        return
    try:
        content = found.request.content
    except found.client.RequestNotRead:  # a redirected request has its bytes in the stream only
        content = b"".join(stream)
    if content:
        call.body = Body(len(content))
        found.body = content


class ReplyParts(NamedTuple):
    """What a response is built of."""

    status: int
    headers: RawHeaders
    content: bytes


def local_reply(reply: LocalReply, found: Outgoing) -> ReplyParts:
    """The parts of a response that no endpoint gave."""
    return ReplyParts(reply.status, found.response_headers(list(reply.headers)), reply.body)


def retry_after(headers: RawHeaders) -> float | None:
    """Seconds the `Retry-After` header asks for; negative: unreadable, so never again; None: it isn't there.

    Never again, either, where the endpoint says that it is overloaded: a retry is more of what it has too much of.
    """
    if any(name.lower() == OVERLOADED_HEADER for name, _ in headers):
        return -1.0
    for name, value in headers:
        if len(name) == 11 and name.lower() == b"retry-after":
            text = value.decode("latin-1").strip()
            if text.isdecimal():
                return float(text[:9])
            try:
                return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
            except (ValueError, OverflowError):
                return -1.0
    return None


def raise_failure(outcome: Outcome, found: Outgoing) -> NoReturn:
    """Raise the exception for a call that brought no response, with its evidence."""
    assert outcome.failure is not None
    call = found.call
    kind, words = ERRORS[outcome.failure]
    cluster = call.cluster.name if call.cluster is not None else call.host
    others = call.cluster.total if call.cluster is not None else 0
    nobody = f"of the {others} endpoints none wears the subset's labels" if others else "no instance is registered"
    message = words.format(host=call.host, cluster=cluster, why=outcome.error, nobody=nobody)
    error = errors.for_client(kind, found.client)(message, call.evidence(time.monotonic()))
    error.request = found.request
    raise error from outcome.error


def unknown_host(host: str, plan: Plan, client: ModuleType, request: Any) -> NoReturn:
    """Raise for a host the mesh doesn't know, under `registry-only` or where it is to be called by TLS only."""
    why = "MESHLIB_OUTBOUND is registry-only"
    if plan.keeps(request.url.raw_host.decode("ascii"), request.url.scheme):
        why = "its DestinationRule asks for TLS, so it isn't called in the clear"
    message = f"the mesh doesn't know {host!r} and {why}: register it or add a ServiceEntry"
    error = errors.for_client(errors.UnknownHost, client)(message, errors.Evidence(host, version=plan.version))
    error.request = request
    raise error
