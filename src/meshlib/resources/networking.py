"""Istio's networking.istio.io documents: VirtualService, DestinationRule and ServiceEntry.

Names, defaults and meanings are those of istio/api (`virtual_service.proto`, `destination_rule.proto`,
`service_entry.proto`). None means that the document doesn't say. Durations are seconds. Fields that Istio has and these
types lack are in `meshlib.resources.fields`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from meshlib.resources.units import Base64, Count, Percentage, Port, Range, Seconds, SecondsOrOff, Status

__all__ = [
    "Abort",
    "ClientTLSSettings",
    "ConnectionPoolSettings",
    "ConsistentHashLB",
    "CorsPolicy",
    "Delay",
    "Destination",
    "DestinationRuleSpec",
    "HTTPBody",
    "HTTPCookie",
    "HTTPDirectResponse",
    "HTTPFaultInjection",
    "HTTPMatchRequest",
    "HTTPRedirect",
    "HTTPRetry",
    "HTTPRewrite",
    "HTTPRoute",
    "HTTPRouteDestination",
    "HTTPSettings",
    "HeaderOperations",
    "Headers",
    "LoadBalancerSettings",
    "MagLev",
    "OutlierDetection",
    "Percent",
    "PortSelector",
    "RetryBudget",
    "RingHash",
    "ServiceEntrySpec",
    "ServicePort",
    "StringMatch",
    "Subset",
    "TCPSettings",
    "TrafficPolicy",
    "VirtualServiceSpec",
    "WorkloadEntry",
]


MAX_RING = 2**20
"""Points; a ring of more takes seconds to build in Python at each change of endpoints. Envoy's bound is 2^23."""

MAX_TABLE = 5_000_011
"""Places; Envoy's and Istio's bound."""

_Simple = Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"]


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


class HTTPCookie(_Message, frozen=True):
    """A cookie to hash. With a `ttl` one is made for who has none; 0s lasts as long as the client's session."""

    name: str
    path: str = ""
    ttl: SecondsOrOff | None = None


class RingHash(_Message, frozen=True):
    """A ring of points, so many at least; the more, the evener."""

    minimum_ring_size: Annotated[int, Range(1, MAX_RING)] = 1024


class MagLev(_Message, frozen=True):
    """A table of so many places, a prime number; Istio's default is Envoy's."""

    table_size: Annotated[int, Range(2, MAX_TABLE)] = 65537


class ConsistentHashLB(_Message, frozen=True):
    """Requests of one key go to one endpoint: exactly one of the four keys, and a ring (the default) or a table.

    `minimum_ring_size` is the old place of the ring's.
    """

    http_header_name: str | None = None
    http_cookie: HTTPCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: str | None = None
    ring_hash: RingHash | None = None
    maglev: MagLev | None = None
    minimum_ring_size: Annotated[int, Range(0, MAX_RING)] | None = None


class LoadBalancerSettings(_Message, frozen=True):
    """One of the two. LEAST_CONN is the old name of LEAST_REQUEST."""

    simple: _Simple | None = None
    consistent_hash: ConsistentHashLB | None = None


class TCPSettings(_Message, frozen=True):
    """Limits of connections."""

    max_connections: Count | None = None
    connect_timeout: Seconds | None = None
    idle_timeout: SecondsOrOff | None = None


class HTTPSettings(_Message, frozen=True):
    """Limits of requests."""

    http1_max_pending_requests: Count | None = None
    http2_max_requests: Count | None = None
    max_requests_per_connection: Count | None = None
    max_retries: Count | None = None
    idle_timeout: SecondsOrOff | None = None


class ConnectionPoolSettings(_Message, frozen=True):
    """Limits of one destination; Istio's defaults are 2^32 - 1."""

    tcp: TCPSettings | None = None
    http: HTTPSettings | None = None


class OutlierDetection(_Message, frozen=True):
    """When an endpoint is judged bad and taken out for a while."""

    consecutive_5xx_errors: Count | None = msgspec.field(default=None, name="consecutive5xxErrors")
    consecutive_gateway_errors: Count | None = None
    consecutive_local_origin_failures: Count | None = None
    split_external_local_origin_errors: bool | None = None
    interval: Seconds | None = None
    base_ejection_time: Seconds | None = None
    max_ejection_percent: Percentage | None = None
    min_health_percent: Percentage | None = None


class RetryBudget(_Message, frozen=True):
    """Retries at one time: the larger of `percent` of the active requests and `min_retry_concurrency`."""

    percent: Percentage = 20.0
    min_retry_concurrency: Count = 3


class ClientTLSSettings(_Message, frozen=True):
    """TLS to a destination, begun by meshlib for `http://` URLs.

    Attributes:
        mode: DISABLE: plain. SIMPLE: TLS. MUTUAL: with the certificate named here. ISTIO_MUTUAL: with the identity.
        client_certificate, private_key, ca_certificates: paths of PEM files; without the last the system's CAs.
        subject_alt_names: what the peer's certificate must have one of; without it the destination's own identity.
        sni: the server name sent; without it the destination's host.
        insecure_skip_verify: don't verify the peer. SIMPLE and MUTUAL only.
    """

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    client_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    subject_alt_names: tuple[str, ...] = ()
    sni: str = ""
    insecure_skip_verify: bool = False


class TrafficPolicy(_Message, frozen=True):
    """How calls to a destination are balanced, limited and judged."""

    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    retry_budget: RetryBudget | None = None


class Subset(_Message, frozen=True):
    """Endpoints that wear all of `labels`."""

    name: str
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(_Message, frozen=True):
    """What holds for requests to `host` once the route is chosen."""

    host: str
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()


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
