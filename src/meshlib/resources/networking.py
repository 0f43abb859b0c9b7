"""Istio's networking.istio.io documents: VirtualService and ServiceEntry; DestinationRule is in `destinations`.

Names, defaults and meanings are those of istio/api (`virtual_service.proto`, `service_entry.proto`). None means that
the document doesn't say. Durations are seconds. Fields that Istio has and these types lack are in
`meshlib.resources.fields`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from meshlib.resources.units import Base64, Count, Percentage, Port, Seconds, SecondsOrOff, Status

__all__ = [
    "Abort",
    "CorsPolicy",
    "Delay",
    "Destination",
    "HTTPBody",
    "HTTPDirectResponse",
    "HTTPFaultInjection",
    "HTTPMatchRequest",
    "HTTPRedirect",
    "HTTPRetry",
    "HTTPRewrite",
    "HTTPRoute",
    "HTTPRouteDestination",
    "HeaderOperations",
    "Headers",
    "Percent",
    "PortSelector",
    "ServiceEntrySpec",
    "ServicePort",
    "StringMatch",
    "VirtualServiceSpec",
    "WorkloadEntry",
]


class _Message(msgspec.Struct, frozen=True, rename="camel"):
    """A message of the Istio API: immutable, in camel case on the wire."""


class StringMatch(_Message, frozen=True):
    """One of exact, prefix and regex (RE2 syntax, the whole value). None of them, for a header, means it is present."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class HTTPMatchRequest(_Message, frozen=True):
    """Conditions that must all hold."""

    name: str = ""
    uri: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch] = {}
    query_params: dict[str, StringMatch] = {}
    without_headers: dict[str, StringMatch] = {}


class PortSelector(_Message, frozen=True):
    """A port of the destination."""

    number: Port


class Destination(_Message, frozen=True):
    """Where requests go: a host, or one subset of it."""

    host: str
    subset: str | None = None
    port: PortSelector | None = None


class HeaderOperations(_Message, frozen=True):
    """Set replaces, add appends, remove takes away."""

    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: tuple[str, ...] = ()


class Headers(_Message, frozen=True):
    """What is done to headers on the way out and on the way back."""

    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class HTTPRouteDestination(_Message, frozen=True):
    """A share of the route's requests: weight / (sum of the weights). A single destination needs no weight."""

    destination: Destination
    weight: int = 0
    headers: Headers | None = None


class HTTPRedirect(_Message, frozen=True):
    """Answer with a redirect instead of forwarding. 301 is the default code of Istio."""

    uri: str | None = None
    authority: str | None = None
    redirect_code: int = 301


class HTTPBody(_Message, frozen=True):
    """One of text and base64."""

    string: str | None = None
    bytes: Base64 | None = None


class HTTPDirectResponse(_Message, frozen=True):
    """Answer with this instead of forwarding."""

    status: Status
    body: HTTPBody | None = None


class HTTPRewrite(_Message, frozen=True):
    """What to change before forwarding; `uri` replaces the prefix that matched, or the whole path."""

    uri: str | None = None
    authority: str | None = None


class HTTPRetry(_Message, frozen=True):
    """Retries after the first try. `attempts` 0 turns them off; None is the default of routes that name none, 2."""

    attempts: Count | None = None
    per_try_timeout: SecondsOrOff | None = None
    retry_on: str | None = None
    retry_ignore_previous_hosts: bool | None = None
    backoff: Seconds | None = None


class Percent(_Message, frozen=True):
    """A share from 0 to 100."""

    value: Percentage = 0.0


class Delay(_Message, frozen=True):
    """Wait before forwarding. `percent` is the old, whole-number form of `percentage`."""

    fixed_delay: Seconds
    percentage: Percent | None = None
    percent: Percentage | None = None

    @property
    def share(self) -> float:
        """Percent of requests delayed; without a percentage Istio delays none."""
        return self.percentage.value if self.percentage is not None else self.percent or 0.0


class Abort(_Message, frozen=True):
    """Answer without forwarding."""

    http_status: Status | None = None
    percentage: Percent | None = None

    @property
    def share(self) -> float:
        """Percent of requests aborted; without a percentage Istio aborts none."""
        return self.percentage.value if self.percentage is not None else 0.0


class HTTPFaultInjection(_Message, frozen=True):
    """Delay first, then abort."""

    delay: Delay | None = None
    abort: Abort | None = None


class CorsPolicy(_Message, frozen=True):
    """Which pages of other origins a browser lets ask.

    Attributes:
        allow_origins: of pages; `exact: "*"` is any.
        allow_methods, allow_headers: what they may ask with.
        expose_headers: of responses, what they may read.
        max_age: seconds a browser may remember the answer to a preflight.
        allow_credentials: whether they may send cookies and the like.
        unmatched_preflights: what becomes of a preflight of another origin. FORWARD, the default: the application
            answers it. IGNORE: it is answered without leave.
    """

    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: SecondsOrOff | None = None
    allow_credentials: bool = False
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] = "UNSPECIFIED"


class HTTPRoute(_Message, frozen=True):
    """One ordered rule: any of `match` (none: every request), then one of route, redirect and direct response."""

    name: str = ""
    match: tuple[HTTPMatchRequest, ...] = ()
    route: tuple[HTTPRouteDestination, ...] = ()
    redirect: HTTPRedirect | None = None
    direct_response: HTTPDirectResponse | None = None
    rewrite: HTTPRewrite | None = None
    timeout: SecondsOrOff | None = None
    retries: HTTPRetry | None = None
    fault: HTTPFaultInjection | None = None
    headers: Headers | None = None
    cors_policy: CorsPolicy | None = None


class VirtualServiceSpec(_Message, frozen=True):
    """How requests for `hosts` are routed. `gateways` without "mesh" is meant for other proxies than callers."""

    hosts: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    http: tuple[HTTPRoute, ...] = ()


class ServicePort(_Message, frozen=True):
    """A port callers use, and the one endpoints listen on."""

    number: Port
    name: str
    protocol: str = "TCP"
    target_port: Port | None = None


class WorkloadEntry(_Message, frozen=True):
    """One endpoint. `ports` maps the service's port names to the endpoint's port numbers."""

    address: str
    ports: dict[str, Port] = {}
    labels: dict[str, str] = {}
    weight: Count | None = None
    locality: str | None = None


class ServiceEntrySpec(_Message, frozen=True):
    """Hosts that no service registers, and where they are."""

    hosts: tuple[str, ...]
    ports: tuple[ServicePort, ...] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"] = "NONE"
    endpoints: tuple[WorkloadEntry, ...] = ()
