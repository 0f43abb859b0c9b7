"""Istio's DestinationRule: how calls to a host are balanced, limited, judged and secured.

Names, defaults and meanings are those of istio/api (`destination_rule.proto`). None means that the document doesn't
say. Durations are seconds. Fields that Istio has and these types lack are in `meshlib.resources.fields`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from meshlib.resources.units import Count, Percentage, Range, Seconds, SecondsOrOff

__all__ = [
    "MAX_RING",
    "MAX_TABLE",
    "ClientTLSSettings",
    "ConnectionPoolSettings",
    "ConsistentHashLB",
    "DestinationRuleSpec",
    "HTTPCookie",
    "HTTPSettings",
    "LoadBalancerSettings",
    "MagLev",
    "OutlierDetection",
    "RetryBudget",
    "RingHash",
    "Subset",
    "TCPSettings",
    "TrafficPolicy",
]

MAX_RING = 2**20
"""Points; a ring of more takes seconds to build in Python at each change of endpoints. Envoy's bound is 2^23."""

MAX_TABLE = 5_000_011
"""Places; Envoy's and Istio's bound."""

_Simple = Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"]


class _Message(msgspec.Struct, frozen=True, rename="camel"):
    """A message of the Istio API: immutable, in camel case on the wire."""


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
