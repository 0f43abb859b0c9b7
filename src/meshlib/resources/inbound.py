"""InboundPolicy, under meshlib/v1: how much comes in, and what is turned away first.

What Istio has no word for, or says outside its documents (`extensionProviders` and `trustDomainAliases` are
MeshConfig's, in the same words).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from meshlib.resources.networking import HTTPFaultInjection, HTTPMatchRequest
from meshlib.resources.security import WorkloadSelector
from meshlib.resources.units import Port, Range, Seconds, Status

__all__ = [
    "AdaptiveConcurrency",
    "Concurrency",
    "ExtensionProvider",
    "HTTPAuthorizer",
    "InboundFault",
    "InboundPolicySpec",
    "Overload",
    "Priority",
    "PriorityName",
    "PriorityRule",
    "RateLimit",
    "RateLimitKey",
    "RequestBodyInCheck",
    "RequestBounds",
]

PriorityName = Literal["critical", "default", "best-effort"]

_AtLeastOne = Annotated[int, Range(1, 2**32 - 1)]
_Bytes = Annotated[int, Range(1, 2**40)]


class _Message(msgspec.Struct, frozen=True, rename="camel"):
    """A message under meshlib/v1: immutable, in camel case on the wire."""


class RateLimitKey(_Message, frozen=True):
    """What callers are told apart by; exactly one.

    Attributes:
        principal: the verified identity of the caller.
        claim: a claim of the verified token; `a.b` is `b` within `a`.
        header: the value of a request header.
        remote_address: the caller's IP address.
    """

    principal: bool = False
    claim: str | None = None
    header: str | None = None
    remote_address: bool = False


class RateLimit(_Message, frozen=True):
    """A token bucket: `requests` flow in evenly in each `per`, and `burst` is the most it holds.

    Attributes:
        name: by which it is counted and reported.
        requests: let in per `per`.
        per: seconds.
        burst: requests at once; None: as many as `requests`.
        match: which requests it holds for, as of a VirtualService; empty: all.
        by: each value of these has a bucket of its own; empty: one for all. Who lacks one of them shares one bucket
            with all who lack it.
        scope: LOCAL: each process by itself. GLOBAL: all processes together, counted where MESHLIB_LIMITS says.
        on_error: what becomes of requests while a GLOBAL limit can't be counted.
        dry_run: count and log, but let in.
    """

    name: str
    requests: _AtLeastOne
    per: Seconds = 1.0
    burst: _AtLeastOne | None = None
    match: tuple[HTTPMatchRequest, ...] = ()
    by: tuple[RateLimitKey, ...] = ()
    scope: Literal["LOCAL", "GLOBAL"] = "LOCAL"
    on_error: Literal["ALLOW", "DENY"] = "ALLOW"
    dry_run: bool = False


class AdaptiveConcurrency(_Message, frozen=True):
    """A limit found by measuring latency, between `min_limit` and `max_limit` requests."""

    min_limit: _AtLeastOne = 2
    max_limit: _AtLeastOne = 1000
    initial_limit: _AtLeastOne = 20


class Concurrency(_Message, frozen=True):
    """Requests served at one time, and a short queue before them.

    Attributes:
        max_requests: served at one time; None with `adaptive`: as that finds.
        adaptive: find the limit; with `max_requests` never above it.
        max_pending: requests that may wait.
        max_wait: seconds one may wait.
    """

    max_requests: _AtLeastOne | None = None
    adaptive: AdaptiveConcurrency | None = None
    max_pending: Annotated[int, Range(0, 100_000)] = 100
    max_wait: Seconds = 0.1


class PriorityRule(_Message, frozen=True):
    """The priority of requests that match and bring none of their own."""

    match: tuple[HTTPMatchRequest, ...]
    priority: PriorityName


class Priority(_Message, frozen=True):
    """What is turned away first when there is too much: best-effort before default, that before critical.

    Attributes:
        trust: whose `x-meshlib-priority` header counts: anybody's, or that of callers with a verified identity.
        rules: for requests without one; the first that matches. Without any it is `default`.
    """

    trust: Literal["ALL", "IDENTIFIED"] = "ALL"
    rules: tuple[PriorityRule, ...] = ()


class Overload(_Message, frozen=True):
    """Signals beyond which work is turned away by priority.

    Attributes:
        event_loop_lag: seconds a callback may be late on the event loop that serves (ASGI).
        queue_time: seconds a request may have waited before it got here: in our queue, or since `x-request-start`.
    """

    event_loop_lag: Seconds | None = None
    queue_time: Seconds | None = None


class RequestBounds(_Message, frozen=True):
    """What a request may be: 431 for too much head, 413 for too long a body (also one that only turns out to be)."""

    max_header_bytes: _Bytes | None = None
    max_headers: _AtLeastOne | None = None
    max_body_bytes: _Bytes | None = None


class InboundFault(_Message, frozen=True):
    """A fault for requests that match; the first that matches."""

    fault: HTTPFaultInjection
    match: tuple[HTTPMatchRequest, ...] = ()


class RequestBodyInCheck(_Message, frozen=True):
    """How much of the body the authorizer gets."""

    max_request_bytes: _Bytes
    allow_partial_message: bool = False


class HTTPAuthorizer(_Message, frozen=True):
    """Envoy's external authorization by HTTP, in MeshConfig's words (`envoyExtAuthzHttp`).

    Attributes:
        service, port: who is asked, a service of the mesh or any host.
        timeout: seconds. Envoy's default is 0.2.
        path_prefix: before the path that is asked with.
        fail_open: whether requests come in while it can't be asked.
        status_on_error: of the answer when it can't be asked, and `fail_open` isn't set.
    """

    service: str
    port: Port
    timeout: Seconds = 0.2
    path_prefix: str = ""
    fail_open: bool = False
    status_on_error: Status = 403
    include_request_headers_in_check: tuple[str, ...] = ()
    include_additional_headers_in_check: dict[str, str] = {}
    include_request_body_in_check: RequestBodyInCheck | None = None
    headers_to_upstream_on_allow: tuple[str, ...] = ()
    headers_to_downstream_on_deny: tuple[str, ...] = ()
    headers_to_downstream_on_allow: tuple[str, ...] = ()


class ExtensionProvider(_Message, frozen=True):
    """Who decides for AuthorizationPolicies with `action: CUSTOM` that name it."""

    name: str
    envoy_ext_authz_http: HTTPAuthorizer


class InboundPolicySpec(_Message, frozen=True):
    """How requests to the selected instances are limited. What isn't set is off, or as a wider policy has it.

    Attributes:
        trust_domain_aliases: trust domains whose identities count as of ours in AuthorizationPolicies.
        drain_wait: seconds between leaving the registry and telling the server to stop.
    """

    selector: WorkloadSelector | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    concurrency: Concurrency | None = None
    priority: Priority | None = None
    overload: Overload | None = None
    request_bounds: RequestBounds | None = None
    faults: tuple[InboundFault, ...] = ()
    extension_providers: tuple[ExtensionProvider, ...] = ()
    trust_domain_aliases: tuple[str, ...] = ()
    drain_wait: Seconds | None = None
