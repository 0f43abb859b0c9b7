"""DestinationRule's `consistentHash`: what is hashed, and what becomes of the tables when plans come and go."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from meshlib.plan.affinity import HashKey
from meshlib.plan.cluster import Cluster
from meshlib.policy.balance import FailoverPicker
from meshlib.policy.hashing import HashPicker, Maglev, RingHash, hash_of
from meshlib.state.store import StateStore
from tests.unit.plan.compiled import compiled, doc, head, only, reviews

THREE = [reviews(number) for number in (1, 2, 3)]


def rule(hashing: str) -> str:
    return doc("DestinationRule", f"host: reviews\ntrafficPolicy: {{loadBalancer: {{consistentHash: {hashing}}}}}\n")


def hashed(hashing: str, *more: str, store: StateStore | None = None, count: int = 3, now: float = 0.0) -> Cluster:
    return only(compiled(rule(hashing), *more, instances=THREE[:count], store=store, now=now))


def key(hashing: str) -> HashKey:
    found = hashed(hashing).hash_key
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("hashing", "kind", "size"),
    [
        ("{httpHeaderName: x-user}", RingHash, 1024),
        ("{httpHeaderName: x-user, ringHash: {minimumRingSize: 5000}}", RingHash, 5000),
        ("{httpHeaderName: x-user, minimumRingSize: 5000}", RingHash, 5000),
        ("{httpHeaderName: x-user, minimumRingSize: 0}", RingHash, 1024),
        ("{httpHeaderName: x-user, minimumRingSize: 9, ringHash: {minimumRingSize: 5000}}", RingHash, 5000),
        ("{httpHeaderName: x-user, maglev: {}}", Maglev, 65537),
        ("{httpHeaderName: x-user, maglev: {tableSize: 1009}}", Maglev, 1009),
    ],
)
def test_the_algorithm_and_its_size_are_the_documents(hashing: str, kind: type[HashPicker], size: int) -> None:
    picker = hashed(hashing).picker
    assert type(picker) is kind
    assert picker.table.made_of[1] == size


@pytest.mark.parametrize(
    ("hashing", "path", "headers", "value"),
    [
        ("{httpHeaderName: X-User}", "/", {"x-user": "jason"}, "jason"),
        ("{httpHeaderName: x-user}", "/", {}, None),
        ("{httpQueryParameterName: user}", "/?a=1&user=jason&user=eve", {}, "jason"),
        ("{httpQueryParameterName: user}", "/?a=1", {}, None),
        ("{httpCookie: {name: sid}}", "/", {"cookie": "a=b; sid=jason; c=d"}, "jason"),
        ("{httpCookie: {name: sid}}", "/", {"cookie": 'sid="jason"'}, "jason"),
        ("{httpCookie: {name: sid}}", "/", {"cookie": "notsid=eve; sid="}, None),
        ("{useSourceIp: true}", "/", {}, ""),
    ],
)
def test_the_key_is_read_from_the_request(
    hashing: str, path: str, headers: Mapping[str, str], value: str | None
) -> None:
    request = head(path, headers=headers)
    assert key(hashing).value(request) == value
    wanted = None if value is None else hash_of(value.encode())
    assert key(hashing).affinity(request, lambda: 0.5) == (wanted, None)


@pytest.mark.parametrize(
    ("cookie", "attributes"),
    [
        ("{name: sid, ttl: 0s}", "HttpOnly"),
        ("{name: sid, ttl: 1h, path: /api}", "Max-Age=3600; Path=/api; HttpOnly"),
        ("{name: sid, ttl: 500ms}", "Max-Age=1; HttpOnly"),
    ],
)
def test_a_cookie_with_a_ttl_is_made_and_brings_its_key_back(cookie: str, attributes: str) -> None:
    sid = key(f"{{httpCookie: {cookie}}}")
    made, header = sid.affinity(head(), lambda: 0.25)
    assert header is not None
    pair, _, rest = header.decode().partition("; ")
    assert rest == attributes
    assert sid.affinity(head(headers={"cookie": pair}), lambda: 0.75) == (made, None)
    assert sid.affinity(head(), lambda: 0.75).key != made


def test_the_balancer_of_an_outbound_policy_goes_before_hashing() -> None:
    cluster = hashed("{useSourceIp: true}", doc("OutboundPolicy", "{host: reviews, loadBalancer: PEAK_EWMA}"))
    assert (cluster.picker.name, cluster.hash_key) == ("PEAK_EWMA", None)


def test_a_cluster_that_does_not_hash_has_no_key() -> None:
    cluster = only(compiled(instances=THREE))
    assert cluster.hash_key is None
    assert cluster.state.tables == {}


def table(cluster: Cluster) -> object:
    assert isinstance(cluster.picker, HashPicker)
    return cluster.picker.table


def test_a_new_plan_for_the_same_endpoints_keeps_the_table() -> None:
    store = StateStore()
    before = hashed("{useSourceIp: true}", store=store)
    other = doc("VirtualService", "{hosts: [ratings], http: [{route: [{destination: {host: reviews}}]}]}")
    assert table(hashed("{useSourceIp: true}", other, store=store, now=1.0)) is table(before)
    assert table(hashed("{useSourceIp: true}", store=store, count=2, now=2.0)) is not table(before)


def test_each_tier_of_a_failover_has_a_table_of_its_own_which_goes_with_it() -> None:
    store = StateStore()
    failover = doc("OutboundPolicy", "{host: reviews, failover: [{host: other}]}")
    cluster = hashed("{useSourceIp: true}", failover, store=store)
    assert isinstance(cluster.picker, FailoverPicker)
    assert set(cluster.state.tables) == set(cluster.picker.tiers)
    assert set(hashed("{useSourceIp: true}", store=store, now=1.0).state.tables) == {cluster.name}
    assert only(compiled(instances=THREE, store=store, now=2.0)).state.tables == {}
