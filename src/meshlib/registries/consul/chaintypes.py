"""Consul's compiled discovery chain, read: typed what is understood, named what isn't."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from meshlib.resources.documents import show

__all__ = [
    "Chain",
    "ChainTarget",
    "HTTPMatch",
    "HashPolicy",
    "HeaderChanges",
    "HeaderMatch",
    "LoadBalancer",
    "Node",
    "QueryMatch",
    "Resolver",
    "RouteDestination",
    "read_chain",
]

MAX_NODES = 10_000
"""Nodes, targets, and routes or splits of one node; what Consul itself stores in an entry is far smaller."""


_SAYS_NOTHING = {"ServiceMeta", "CustomizationHash", "VirtualIPs", "AutoVirtualIPs", "ManualVirtualIPs", "Locality"}
"""Parts of newer chains by which nothing is to be done."""


class _Part(msgspec.Struct, frozen=True, rename="pascal"):
    """A part of a chain: immutable, as Consul names it."""


class HeaderMatch(_Part, frozen=True):
    """A router's condition on a header."""

    name: str
    present: bool = False
    exact: str = ""
    prefix: str = ""
    suffix: str = ""
    contains: str = ""
    regex: str = ""
    invert: bool = False


class QueryMatch(_Part, frozen=True):
    """A router's condition on a query parameter."""

    name: str
    present: bool = False
    exact: str = ""
    regex: str = ""


class HTTPMatch(_Part, frozen=True):
    """Conditions that must all hold."""

    path_exact: str = ""
    path_prefix: str = ""
    path_regex: str = ""
    case_insensitive: bool = False
    header: tuple[HeaderMatch, ...] = ()
    query_param: tuple[QueryMatch, ...] = ()
    methods: tuple[str, ...] = ()


class HeaderChanges(_Part, frozen=True):
    """What is done to headers."""

    add: dict[str, str] = {}
    set: dict[str, str] = {}
    remove: tuple[str, ...] = ()


class RouteDestination(_Part, frozen=True):
    """How a route's requests are sent. Where to is in the graph; the names here are what was written."""

    service: str = ""
    service_subset: str = ""
    namespace: str = ""
    partition: str = ""
    prefix_rewrite: str = ""
    request_timeout: str | int = ""
    num_retries: int = 0
    retry_on_connect_failure: bool = False
    retry_on_status_codes: tuple[int, ...] = ()
    retry_on: tuple[str, ...] = ()
    request_headers: HeaderChanges = HeaderChanges()
    response_headers: HeaderChanges = HeaderChanges()


class Match(_Part, frozen=True):
    """`http` is the only kind there is."""

    http: HTTPMatch = msgspec.field(default=HTTPMatch(), name="HTTP")


class RouteDefinition(_Part, frozen=True):
    """A route as it was written."""

    match: Match = Match()
    destination: RouteDestination = RouteDestination()


class Route(_Part, frozen=True):
    """A route and the node its requests go to."""

    next_node: str
    definition: RouteDefinition = RouteDefinition()


class SplitDefinition(_Part, frozen=True):
    """A split as it was written; where to and how much is in the graph."""

    weight: float = 0.0
    service: str = ""
    service_subset: str = ""
    namespace: str = ""
    partition: str = ""
    request_headers: HeaderChanges = HeaderChanges()
    response_headers: HeaderChanges = HeaderChanges()


class Split(_Part, frozen=True):
    """A share, in percent, and the node it goes to."""

    next_node: str
    weight: float
    definition: SplitDefinition = SplitDefinition()


class Failover(_Part, frozen=True):
    """Targets to use instead, in order."""

    targets: tuple[str, ...] = ()


class Resolver(_Part, frozen=True):
    """The end of the graph: a target. `default` is one nobody configured."""

    target: str
    connect_timeout: str | int = ""
    request_timeout: str | int = ""
    default: bool = False
    failover: Failover = Failover()


class CookieConfig(_Part, frozen=True):
    """The cookie that a proxy makes for who has none; one for a session has no `ttl`."""

    session: bool = False
    ttl: str | int = msgspec.field(default="", name="TTL")
    path: str = ""


class HashPolicy(_Part, frozen=True):
    """What of a request is hashed. `terminal`: what comes after it counts only where this isn't there."""

    field: str = ""
    field_value: str = ""
    cookie_config: CookieConfig | None = None
    source_ip: bool = msgspec.field(default=False, name="SourceIP")
    terminal: bool = False


class RingHashConfig(_Part, frozen=True):
    """Points of the ring."""

    minimum_ring_size: int = 0
    maximum_ring_size: int = 0


class LeastRequestConfig(_Part, frozen=True):
    """How many endpoints are compared."""

    choice_count: int = 0


class LoadBalancer(_Part, frozen=True):
    """How a target's endpoints are chosen. Consul has it since 1.9."""

    policy: str = ""
    hash_policies: tuple[HashPolicy, ...] = ()
    ring_hash_config: RingHashConfig = RingHashConfig()
    least_request_config: LeastRequestConfig = LeastRequestConfig()


class Node(_Part, frozen=True):
    """A router, a splitter or a resolver."""

    type: str
    name: str = ""
    routes: tuple[Route, ...] = ()
    splits: tuple[Split, ...] = ()
    resolver: Resolver | None = None
    load_balancer: LoadBalancer = LoadBalancer()


class TargetSubset(_Part, frozen=True):
    """Which instances of a service; the filter is for Consul to evaluate."""

    filter: str = ""
    only_passing: bool = False


class ChainTarget(_Part, frozen=True):
    """A service, or a subset of one, in a datacenter. A peer's and another partition's can't be reached from here."""

    service: str
    datacenter: str
    service_subset: str = ""
    namespace: str = ""
    partition: str = ""
    peer: str = ""
    subset: TargetSubset = TargetSubset()
    connect_timeout: str | int = ""
    id: str = msgspec.field(default="", name="ID")
    sni: str = msgspec.field(default="", name="SNI")
    name: str = ""


class Chain(_Part, frozen=True):
    """A compiled chain: a graph of nodes from `start_node` to targets."""

    service_name: str
    datacenter: str
    start_node: str
    nodes: dict[str, Node]
    targets: dict[str, ChainTarget]
    namespace: str = ""
    partition: str = ""
    protocol: str = ""
    default: bool = False


def read_chain(answer: bytes | Mapping[str, Any]) -> tuple[Chain, tuple[str, ...]]:
    """The chain in an answer of `GET /v1/discovery-chain/<service>`, and the settings in it that aren't known here.

    Raises:
        ValueError: it isn't such an answer.
    """
    try:
        raw = msgspec.json.decode(answer) if isinstance(answer, bytes) else answer
        written = _without_nulls(raw).get("Chain") if isinstance(raw, dict) else None
        if not isinstance(written, dict):
            raise ValueError(f"a discovery chain is {show(raw)}; expected a mapping with Chain")
        chain = msgspec.convert(written, Chain)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"a discovery chain can't be read: {error}") from error
    for what, number in (
        ("nodes", len(chain.nodes)),
        ("targets", len(chain.targets)),
        ("routes", max((len(node.routes) for node in chain.nodes.values()), default=0)),
        ("splits", max((len(node.splits) for node in chain.nodes.values()), default=0)),
    ):
        if number > MAX_NODES:
            raise ValueError(f"the chain of {show(chain.service_name)} has {number} {what}; at most {MAX_NODES}")
    return chain, tuple(sorted(set(_unknown(written, Chain, ""))))


def _without_nulls(value: Any) -> Any:
    """Consul writes null for an empty list."""
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value


def _unknown(value: Any, hint: Any, at: str) -> Iterator[str]:
    """The places of settings that no type here has, and that say something."""
    for inner in (hint, *typing.get_args(hint)):
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            if isinstance(value, list):
                for entry in value:
                    yield from _unknown(entry, inner, at)
            elif typing.get_origin(hint) is dict:
                for entry in value.values():
                    yield from _unknown(entry, inner, at)
            else:
                hints = typing.get_type_hints(inner)
                known = {field.encode_name: hints[field.name] for field in msgspec.structs.fields(inner)}
                for name, entry in value.items():
                    here = f"{at}.{name}".removeprefix(".")
                    if name in known:
                        yield from _unknown(entry, known[name], here)
                    elif name not in _SAYS_NOTHING and _says_something(entry):
                        yield here


def _says_something(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_says_something(entry) for entry in value.values())
    return bool(value)
