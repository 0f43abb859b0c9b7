"""Discovery chains of a real Consul 1.8.7 (`chains/`), and parts of newer ones, as documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.plan.compile import compile_plan
from meshlib.plan.plan import Plan
from meshlib.plan.snapshot import Snapshot
from meshlib.policy.match import HeadView
from meshlib.registries.base import Instance
from meshlib.registries.consul.chain import Target, documents, subset_label, targets, warnings
from meshlib.resources import load, settle
from meshlib.state.store import StateStore

SAMPLES = Path(__file__).parent / "chains"
HOST = "reviews.default.svc.cluster.local"
RATINGS = "ratings.default.svc.cluster.local"


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.json").read_bytes()


def chain(routes: Any = None, splits: Any = None, *, resolver: Any = None, node: Any = None, **targets_: Any) -> bytes:
    """A chain of reviews: a router with these routes, or a splitter, or just a resolver."""
    plain = {"Service": "reviews", "Datacenter": "dc1", "Namespace": "default"}
    found: dict[str, Any] = {
        "resolver:reviews": {
            "Type": "resolver",
            "Resolver": {"Target": "reviews", "ConnectTimeout": "5s", **(resolver or {"Default": True})},
            **(node or {}),
        }
    }
    start = "resolver:reviews"
    if splits is not None:
        start = "splitter:reviews"
        found[start] = {"Type": "splitter", "Splits": splits}
    if routes is not None:
        start = "router:reviews"
        found[start] = {"Type": "router", "Routes": routes}
    read = {"ServiceName": "reviews", "Datacenter": "dc1", "StartNode": start, "Nodes": found}
    return json.dumps({"Chain": read | {"Targets": {"reviews": plain, **targets_}}}).encode()


def route(match: Any = None, destination: Any = None, to: str = "resolver:reviews") -> dict[str, Any]:
    return {"Definition": {"Match": {"HTTP": match}, "Destination": destination}, "NextNode": to}


def specs(answer: bytes) -> dict[str, list[dict[str, Any]]]:
    """The specs by kind; every document loads."""
    sources = documents(answer, "default")
    assert load(sources).problems == ()
    found: dict[str, list[dict[str, Any]]] = {}
    for source in sources:
        document = json.loads(source.text)
        assert document["metadata"]["labels"] == {"meshlib.io/from": "consul-discovery-chain"}
        found.setdefault(document["kind"], []).append(document["spec"])
    return found


def first(answer: bytes) -> dict[str, Any]:
    """The first route of the VirtualService."""
    [spec] = specs(answer)["VirtualService"]
    assert spec["hosts"] == [HOST]
    found: dict[str, Any] = spec["http"][0]
    return found


def planned(answer: bytes, *instances: Instance) -> Plan:
    resources = settle(load(documents(answer, "default")).resources).resources
    return compile_plan(Snapshot(instances, resources, "1"), "default", StateStore(), 0.0, lambda: 0.5)


@pytest.mark.parametrize("name", ["nothing", "ratings"])
def test_a_chain_that_nobody_configured_says_nothing(name: str) -> None:
    assert (documents(sample(name), "default"), targets(sample(name)), warnings(sample(name), "default")) == (
        (),
        (),
        (),
    )


def test_documents_say_where_they_come_from() -> None:
    assert {source.origin for source in documents(sample("plain"), "default")} == {"consul discovery-chain plain"}


def test_a_connect_timeout_is_the_destinations() -> None:
    [rule] = specs(sample("plain"))["DestinationRule"]
    assert rule["host"] == "plain.default.svc.cluster.local"
    assert rule["trafficPolicy"]["connectionPool"]["tcp"]["connectTimeout"] == "2000ms"


def test_a_redirect_leads_to_another_datacenter() -> None:
    [spec] = specs(sample("other"))["VirtualService"]
    assert spec["http"] == [{"route": [{"destination": {"host": "ratings.service.dc2.consul"}}]}]
    assert targets(sample("other")) == (Target("ratings.service.dc2.consul", "ratings", "dc2", "", False, ""),)


def test_a_whole_chain_is_routed_as_consul_routes_it() -> None:
    label = subset_label("v1"), subset_label("v2")
    v1 = Instance("reviews", "10.0.0.1", 80, labels={label[0]: "true"})
    v2 = Instance("reviews", "10.0.0.2", 80, labels={label[1]: "true"}, healthy=False)
    plan = planned(sample("reviews"), v1, v2, Instance("ratings", "10.1.0.1", 80))
    host = plan.host("reviews", 80)
    assert host is not None

    def clusters(method: str, target: str, **headers: str) -> list[tuple[str, int]]:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        found = host.route(HeadView(method, target.encode(), "reviews", raw))
        assert found is not None
        return [(one.name, weight) for one, weight in zip(found.split.clusters, found.split.weights, strict=True)]

    wanted = {"x_debug": "1", "x_user": "me", "x_suffix": "cab", "x_none": "w", "x_re": "abc"}
    split = [(f"{HOST}|v1", 905), (f"{HOST}|v2", 95)]
    assert clusters("GET", "/admin/x?q=1&p=&r=axb", **wanted) == [(RATINGS, 1)]
    assert clusters("PUT", "/admin/x?q=1&p=&r=axb", **wanted) == split
    assert clusters("GET", "/admin/x?q=1&r=axb", **wanted) == split
    for name in wanted:
        assert clusters("GET", "/admin/x?q=1&p=&r=axb", **(wanted | {name: "q"})) == (
            [(RATINGS, 1)] if name in ("x_user", "x_re") else split
        )
        assert clusters("GET", "/admin/x?q=1&p=&r=axb", **{k: v for k, v in wanted.items() if k != name}) == split
    assert clusters("GET", "/exact") == [(f"{HOST}|v2", 1)]
    assert clusters("GET", "/re/42") == [(RATINGS, 1)]
    found = plan.clusters[f"{HOST}|v2"].picker.pick(0.0, ())
    assert found is not None
    assert found.host == "10.0.0.1"  # v2 fails over to v1
    assert plan.clusters[f"{HOST}|v1"].limits.connect_timeout == 3.0


def test_targets_are_what_must_be_watched() -> None:
    v1, v2 = "Service.Meta.version == v1", "Service.Meta.version == v2"
    assert set(targets(sample("reviews"))) == {
        Target(RATINGS, "ratings", "", "", False, ""),
        Target("ratings.service.dc2.consul", "ratings", "dc2", "", False, ""),
        Target("ratings.service.dc3.consul", "ratings", "dc3", "", False, ""),
        Target(HOST, "reviews", "", v1, False, "v1"),
        Target(HOST, "reviews", "", v2, True, "v2"),
    }


def test_a_route_whose_expression_could_take_for_ever_is_left_out_and_said_so() -> None:
    [said] = warnings(sample("reviews"), "default")
    assert "consul discovery-chain reviews: route 2 is left out" in said
    assert "exponential" in said
    [spec] = specs(sample("reviews"))["VirtualService"]
    assert len(spec["http"]) == 4


@pytest.mark.parametrize(
    ("match", "uri"),
    [
        ({"PathExact": "/a.b"}, {"exact": "/a.b"}),
        ({"PathPrefix": "/a"}, {"prefix": "/a"}),
        ({"PathRegex": "/a[0-9]"}, {"regex": "/a[0-9]"}),
        ({"PathExact": "/a.b", "CaseInsensitive": True}, {"regex": r"(?i)/a\.b"}),
        ({"PathPrefix": "/a", "CaseInsensitive": True}, {"regex": "(?i)/a.*"}),
        ({"PathRegex": "/a", "CaseInsensitive": True}, {"regex": "(?i)/a"}),
    ],
)
def test_a_path_is_compared_as_written(match: Any, uri: Any) -> None:
    assert first(chain([route(match)]))["match"] == [{"uri": uri}]


def test_a_prefix_of_everything_is_no_condition() -> None:
    assert "match" not in first(chain([route({"PathPrefix": "/"})]))


def test_a_header_that_contains_a_text_is_an_expression() -> None:
    match = {"Header": [{"Name": "X", "Contains": "a.b"}]}
    assert first(chain([route(match)]))["match"] == [{"headers": {"x": {"regex": r".*a\.b.*"}}}]


def test_a_header_that_must_not_be_there_is_one_without() -> None:
    match = {"Header": [{"Name": "x", "Present": True, "Invert": True}]}
    assert first(chain([route(match)]))["match"] == [{"withoutHeaders": {"x": {}}}]


def test_two_conditions_on_one_header_cant_be_said() -> None:
    match = {"Header": [{"Name": "x", "Prefix": "a"}, {"Name": "X", "Suffix": "b"}]}
    answer = chain([route(match), route({"PathExact": "/a"})])
    assert first(answer)["match"] == [{"uri": {"exact": "/a"}}]
    assert "two conditions on the header x" in warnings(answer, "default")[0]


def test_a_destination_says_how_requests_are_sent() -> None:
    destination = {
        "PrefixRewrite": "/new",
        "RequestTimeout": "1m0.5s",
        "RetryOnConnectFailure": True,
        "RetryOnStatusCodes": [503],
        "RetryOn": ["reset", "no-such"],
        "RequestHeaders": {"Set": {"x-a": "1"}, "Remove": ["x-b"]},
        "ResponseHeaders": {"Add": {"x-c": "2"}},
    }
    answer = chain([route({"PathPrefix": "/old"}, destination)])
    assert first(answer) == {
        "match": [{"uri": {"prefix": "/old"}}],
        "route": [{"destination": {"host": HOST}}],
        "rewrite": {"uri": "/new"},
        "timeout": "60500ms",
        "retries": {"attempts": 1, "retryOn": "connect-failure,503,reset"},
        "headers": {
            "request": {"set": {"x-a": "1"}, "add": {}, "remove": ["x-b"]},
            "response": {"set": {}, "add": {"x-c": "2"}, "remove": []},
        },
    }
    assert warnings(answer, "default") == ('consul discovery-chain reviews: RetryOn "no-such" is not supported yet',)


def test_a_route_with_a_header_that_no_request_may_hold_is_left_out() -> None:
    answer = chain([route(None, {"RequestHeaders": {"Set": {"x": "a\nb"}}}), route({"PathExact": "/a"})])
    assert len(specs(answer)["VirtualService"][0]["http"]) == 1
    assert "line break" in warnings(answer, "default")[0]


@pytest.mark.parametrize(
    ("percents", "weights"),
    [((90, 10), [90, 10]), ((90.5, 9.5), [905, 95]), ((33.33, 66.67), [3333, 6667]), ((100, 0), [100, 0])],
)
def test_a_splits_weights_are_shown_in_percent_as_far_as_that_goes(
    percents: tuple[float, float], weights: list[int]
) -> None:
    splits = [{"NextNode": "resolver:reviews", "Weight": percent} for percent in percents]
    assert [share["weight"] for share in first(chain(splits=splits))["route"]] == weights


def test_splits_have_weights_of_a_hundredth_of_a_percent_and_headers() -> None:
    far = {"Service": "ratings", "Datacenter": "dc1"}
    splits = [
        {"NextNode": "resolver:reviews", "Weight": 33.33},
        {"NextNode": "resolver:far", "Weight": 66.67, "Definition": {"RequestHeaders": {"Set": {"x": "y"}}}},
    ]
    answer = json.loads(chain(splits=splits, far=far))
    answer["Chain"]["Nodes"]["resolver:far"] = {"Type": "resolver", "Resolver": {"Target": "far"}}
    shares = first(json.dumps(answer).encode())["route"]
    assert [share["weight"] for share in shares] == [3333, 6667]
    assert shares[1]["headers"]["request"]["set"] == {"x": "y"}


@pytest.mark.parametrize(
    ("policy", "simple"), [("random", "RANDOM"), ("round_robin", "ROUND_ROBIN"), ("least_request", "LEAST_REQUEST")]
)
def test_a_load_balancer_is_the_destinations(policy: str, simple: str) -> None:
    [rule] = specs(chain(node={"LoadBalancer": {"Policy": policy}}))["DestinationRule"]
    assert rule == {"host": HOST, "trafficPolicy": {"loadBalancer": {"simple": simple}}}


def balancer(**written: Any) -> tuple[dict[str, Any], list[str]]:
    """The loadBalancer made of Consul's, and the warnings."""
    answer = chain(node={"LoadBalancer": written})
    [rule] = specs(answer)["DestinationRule"]
    said = [text.removeprefix("consul discovery-chain reviews: ") for text in warnings(answer, "default")]
    return rule["trafficPolicy"]["loadBalancer"], said


USER = {"Field": "header", "FieldValue": "x-user"}
BY_USER = {"httpHeaderName": "x-user"}


@pytest.mark.parametrize(
    ("policy", "key"),
    [
        (USER, BY_USER),
        ({"Field": "query_parameter", "FieldValue": "user"}, {"httpQueryParameterName": "user"}),
        ({"SourceIP": True}, {"useSourceIp": True}),
        ({"Field": "cookie", "FieldValue": "sid"}, {"httpCookie": {"name": "sid"}}),
        (
            {"Field": "cookie", "FieldValue": "sid", "CookieConfig": {"TTL": "1m0s", "Path": "/"}},
            {"httpCookie": {"name": "sid", "ttl": "60000ms", "path": "/"}},
        ),
        (
            {"Field": "cookie", "FieldValue": "sid", "CookieConfig": {"Session": True}},
            {"httpCookie": {"name": "sid", "ttl": "0s"}},
        ),
    ],
)
def test_a_hash_policy_is_the_key_of_a_consistent_hash(policy: dict[str, Any], key: dict[str, Any]) -> None:
    assert balancer(Policy="maglev", HashPolicies=[policy]) == ({"consistentHash": key | {"maglev": {}}}, [])


def test_the_size_of_a_ring_is_kept_within_bounds() -> None:
    ring = {"Policy": "ring_hash", "HashPolicies": [USER]}
    assert balancer(**ring) == ({"consistentHash": BY_USER | {"ringHash": {}}}, [])
    found, said = balancer(**ring, RingHashConfig={"MinimumRingSize": 2048, "MaximumRingSize": 4096})
    assert (found, said) == ({"consistentHash": BY_USER | {"ringHash": {"minimumRingSize": 2048}}}, [])
    found, [text] = balancer(**ring, RingHashConfig={"MinimumRingSize": 8_000_000})
    assert found["consistentHash"]["ringHash"] == {"minimumRingSize": 2**20}
    assert text == "MinimumRingSize 8000000 is too large: 1048576 is taken"


@pytest.mark.parametrize("policy", ["maglev", "ring_hash"])
def test_without_a_hash_policy_calls_go_anywhere_and_it_is_said(policy: str) -> None:
    said = f"{policy} has no HashPolicies to hash by: calls go to any endpoint"
    assert balancer(Policy=policy) == ({"simple": "RANDOM"}, [said])


def test_of_several_hash_policies_the_first_that_can_be_hashed_counts_and_the_others_are_said() -> None:
    odd = {"Field": "header", "FieldValue": "two words"}
    policies = [odd, {"Field": "tag", "FieldValue": "x"}, USER | {"Terminal": True}, {"SourceIP": True}]
    found, said = balancer(Policy="maglev", HashPolicies=policies)
    assert found == {"consistentHash": BY_USER | {"maglev": {}}}
    assert len(said) == 3
    assert said[0].startswith('the hash policy "header" "two words" is left out: ')
    assert said[1] == 'the hash policy "tag" "x" is left out: not known'
    assert said[2] == "the hash policy useSourceIp is left out: one key is hashed, the first"


def test_more_choices_of_least_request_than_two_are_said() -> None:
    least = {"Policy": "least_request"}
    assert balancer(**least, LeastRequestConfig={"ChoiceCount": 2}) == ({"simple": "LEAST_REQUEST"}, [])
    found, said = balancer(**least, LeastRequestConfig={"ChoiceCount": 5})
    assert (found, said) == ({"simple": "LEAST_REQUEST"}, ["ChoiceCount 5 is left out: least request compares two"])


@pytest.mark.parametrize(
    ("written", "timeout"), [("7s", "7000ms"), (7_000_000_000, "7000ms"), ("-1s", "0s"), (-1, "0s")]
)
def test_the_request_timeout_of_a_resolver_alone_is_its_routes(written: Any, timeout: str) -> None:
    answer = chain(resolver={"RequestTimeout": written})
    assert first(answer) == {"route": [{"destination": {"host": HOST}}], "timeout": timeout}
    assert warnings(answer, "default") == ()


def test_behind_a_router_or_a_splitter_the_request_timeout_of_a_resolver_counts_no_more_than_in_consul() -> None:
    slow = {"RequestTimeout": "7s"}
    routed = chain([route({"PathExact": "/"}), route(None, {"RequestTimeout": "3s"})], resolver=slow)
    [spec] = specs(routed)["VirtualService"]
    assert [http.get("timeout") for http in spec["http"]] == [None, "3000ms"]
    split = chain(splits=[{"NextNode": "resolver:reviews", "Weight": 100}], resolver=slow)
    assert "timeout" not in first(split)
    for answer in (routed, split):
        [said] = warnings(answer, "default")
        assert "RequestTimeout of a resolver is left out" in said


def test_without_a_request_timeout_a_resolver_of_the_service_needs_no_routes() -> None:
    assert "VirtualService" not in specs(chain(resolver={"RequestTimeout": "0s"}))


def test_settings_that_are_not_known_are_named() -> None:
    answer = json.loads(chain([route({"NewMatch": "x"}, {"NewThing": {"A": 1}, "Empty": []})]))
    answer["Chain"]["Targets"]["reviews"]["MeshGateway"] = {"Mode": "local"}
    answer["Chain"]["ServiceMeta"] = {"a": "b"}
    said = warnings(json.dumps(answer).encode(), "default")
    assert [text.removeprefix("consul discovery-chain reviews: ") for text in said] == [
        "Nodes.Routes.Definition.Destination.NewThing is not supported yet",
        "Nodes.Routes.Definition.Match.HTTP.NewMatch is not supported yet",
        "Targets.MeshGateway is not supported yet",
    ]


def test_failover_to_a_peer_is_left_out_and_said_so() -> None:
    peer = {"Service": "reviews", "Datacenter": "dc1", "Peer": "cloud"}
    far = {"Service": "reviews", "Datacenter": "dc2"}
    answer = chain(resolver={"Failover": {"Targets": ["peer", "far"]}}, peer=peer, far=far)
    [policy] = specs(answer)["OutboundPolicy"]
    assert policy == {"host": HOST, "failover": [{"host": "reviews.service.dc2.consul"}]}
    assert "VirtualService" not in specs(answer)
    assert any('failover to "peer" is left out' in text for text in warnings(answer, "default"))
    assert [target.host for target in targets(answer)] == ["reviews.service.dc2.consul"]


def test_durations_may_be_nanoseconds_and_odd_ones_are_left_out() -> None:
    assert first(chain([route({"PathExact": "/"}, {"RequestTimeout": 1_500_000_000})]))["timeout"] == "1500ms"
    answer = chain([route({"PathExact": "/"}, {"RequestTimeout": "soon"})])
    assert "timeout" not in first(answer)
    assert "RequestTimeout" in warnings(answer, "default")[0]


def circular() -> bytes:
    return chain(
        splits=[{"NextNode": "splitter:reviews", "Weight": 50}, {"NextNode": "splitter:reviews", "Weight": 50}]
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"<html>", b"[]", b"{}", b'{"Chain": null}', b'{"Chain": {"ServiceName": 1}}',
        b"[" * 100_000, sample("reviews")[:1000],
        chain([route(to="resolver:elsewhere")]),
        chain(resolver={"Target": "elsewhere", "Failover": {"Targets": []}}),
        chain([route(to="router:reviews")]),
        circular(),
    ],
)  # fmt: skip
def test_what_is_no_chain_is_refused_and_ends(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"chain"):
        documents(answer, "default")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**12) | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_whatever_stands_in_a_chain_its_documents_load(data: st.DataObject) -> None:
    answer = json.loads(sample("reviews"))
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = answer["Chain"]
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            inside = place[key]
            if not isinstance(inside, dict | list) or not inside or data.draw(st.integers(0, 9)) == 0:
                place[key] = data.draw(JSON | st.sampled_from(["(a+)+", "/", "x\ny", "resolver:ratings.default.dc1"]))
                break
            place = inside
    try:
        sources = documents(answer, "default")
    except ValueError:
        return
    assert load(sources).problems == ()
    warnings(answer, "default")
    targets(answer)
