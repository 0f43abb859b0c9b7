"""What Consul knows of an instance, and what it is told of ours."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.errors import SettingsError
from meshlib.registries.base import Instance
from meshlib.registries.consul.address import ConsulSettings, consul_settings
from meshlib.registries.consul.entries import check_id, definition, health_of, service_id

PLAIN = consul_settings("consul://", {})


def answer(*checks: tuple[str, str, str], **service: Any) -> bytes:
    """One entry of a health answer; a check is its id, status and output."""
    entry = {
        "Node": {"Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc1"},
        "Service": {"ID": "web-1", "Service": "web", "Port": 80, "Address": "", "Meta": None} | service,
        "Checks": [{"CheckID": name, "Status": status, "Output": output} for name, status, output in checks],
    }
    return msgspec.json.encode([entry])


def only(data: bytes) -> Instance:
    (found,) = health_of(data).found
    return found.instance


def come_back(instance: Instance, settings: ConsulSettings = PLAIN) -> Instance:
    """The instance as others find it."""
    told = definition(instance, 10.0, settings, native=False)
    status = told["check"]["Status"]
    return only(
        answer(
            (told["check"]["CheckID"], status, "" if status == "passing" else "meshlib: not healthy"),
            ID=told["service_id"],
            Service=told["name"],
            Port=told["port"],
            Address=told["address"],
            Meta=told["meta"],
            Weights={"Passing": told["weights"]["passing"], "Warning": told["weights"]["warning"]},
        )
    )


texts = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=20)


@given(st.dictionaries(texts, texts, max_size=20), st.booleans())
def test_labels_that_fit_come_back_as_they_were(labels: dict[str, str], healthy: bool) -> None:
    instance = Instance("web", "10.1.1.1", 80, id="x", labels=labels, namespace="shop", weight=9, healthy=healthy)
    assert come_back(instance) == instance


def test_labels_that_do_not_fit_are_refused_with_the_way_out() -> None:
    instance = Instance("web", "h", 1, labels={f"a/{number}": "é" * 253 for number in range(64)})
    with pytest.raises(SettingsError) as caught:
        definition(instance, 10.0, PLAIN, native=False)
    assert "MESHLIB_LABELS" in str(caught.value)


def test_labels_that_consul_can_hold_are_found_by_its_filters() -> None:
    labels = {"version": "v2", "meshlib-x": "1", "consul-x": "1", "a/b": "1", "long": "é" * 253}
    meta = definition(Instance("web", "h", 1, labels=labels), 10.0, PLAIN, native=False)["meta"]
    assert meta["version"] == "v2"
    assert not {"meshlib-x", "consul-x", "a/b"} & meta.keys()
    assert all(len(key) <= 128 and len(value.encode()) <= 512 for key, value in meta.items())


def test_sixty_four_labels_fit_beside_our_own_entries() -> None:
    labels = {f"name-{number}": "value" for number in range(64)}
    instance = Instance(
        "web", "h", 1, id="x", labels=labels, namespace="shop", locality="eu/a", identity="spiffe://e/x"
    )
    assert len(definition(instance, 10.0, PLAIN, native=False)["meta"]) <= 64
    assert come_back(instance) == instance


def test_a_definition_has_the_check_and_the_weights_that_the_settings_say() -> None:
    settings = consul_settings("consul://?tags=a,b&deregister_after=2m&warning_weight=3", {})
    told = definition(Instance("web", "::1", 80, id="x", weight=7), 9.0, settings, native=True)
    assert told["check"]["TTL"] == "9000ms"
    assert told["check"]["DeregisterCriticalServiceAfter"] == "120000ms"
    assert (told["weights"], told["tags"]) == ({"passing": 7, "warning": 3}, ["a", "b"])
    assert told["connect"] == {"native": True}
    polled = definition(Instance("web", "::1", 80), 9.0, settings._replace(check="/health"), native=False)
    assert (polled["check"]["HTTP"], polled["connect"]) == ("http://[::1]:80/health", None)
    assert "TTL" not in polled["check"]


@pytest.mark.parametrize(("bound", "checked"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
def test_a_server_on_all_addresses_has_its_machines(bound: str, checked: str) -> None:
    instance = Instance("web", bound, 80)
    assert come_back(instance).host == "10.0.0.1"
    polled = definition(instance, 9.0, PLAIN._replace(check="/health"), native=False)
    assert polled["check"]["HTTP"] == f"http://{checked}:80/health"


def test_an_identity_that_is_consuls_own_is_not_written_into_meta() -> None:
    instance = Instance("web", "h", 1, identity="spiffe://x.consul/ns/default/dc/dc1/svc/web")
    assert definition(instance, 10.0, PLAIN, native=True)["meta"] == {}
    assert definition(instance, 10.0, PLAIN, native=False)["meta"] == {"meshlib-identity": instance.identity}


def test_a_lease_that_ran_out_is_gone_and_other_failures_are_not() -> None:
    own = "meshlib:web-1"
    assert health_of(answer((own, "critical", "TTL expired"))).found == ()
    assert health_of(answer((own, "critical", "TTL expired (last output before …): meshlib: healthy"))).found == ()
    assert not only(answer((own, "critical", "meshlib: it says that it is not healthy"))).healthy
    assert not only(answer((own, "critical", ""))).healthy
    assert not only(answer((own, "passing", ""), ("serfHealth", "critical", "Agent not live"))).healthy
    assert not only(answer(("another", "critical", "TTL expired"))).healthy
    assert only(answer((own, "passing", ""))).healthy
    assert not only(answer((own, "of a newer Consul", ""))).healthy


def test_an_instance_in_warning_has_its_weight_for_warnings() -> None:
    weights = {"Passing": 10, "Warning": 2}
    assert only(answer(("c", "warning", ""), Weights=weights)).weight == 2
    assert only(answer(("c", "passing", ""), Weights=weights)).weight == 10
    assert not only(answer(("c", "warning", ""), Weights={"Passing": 10, "Warning": 0})).healthy


def test_an_instance_without_an_address_has_its_machines() -> None:
    assert only(answer()).host == "10.0.0.1"
    assert only(answer(Address="10.9.9.9")).host == "10.9.9.9"


def test_proxies_and_gateways_are_no_instances() -> None:
    assert health_of(answer(Kind="connect-proxy")).found == ()


def test_what_can_be_no_instance_is_passed_over_in_words() -> None:
    found = health_of(answer(Port=0))
    assert found.found == ()
    assert "web (web-1 on n1)" in found.warnings[0]
    assert health_of(answer(Service="under_score")).found == ()
    assert health_of(answer(Meta={"meshlib-labels-0": "{"})).found == ()


def test_nobody_slips_in_by_another_writing_of_a_services_name() -> None:
    lists = [answer(ID=f"{name}-1", Service=name, Connect={"Native": True}) for name in ("Web", "web", "WEB")]
    entries = msgspec.json.encode([entry for one in lists for entry in msgspec.json.decode(one)])
    health = health_of(entries)
    assert [found.native for found in health.found] == ["/ns/default/dc/dc1/svc/web"]
    assert [warning.partition(":")[0] for warning in health.warnings] == [
        "Web (Web-1 on n1) is passed over",
        "WEB (WEB-1 on n1) is passed over",
    ]
    assert only(lists[0]).service == "web"  # and where it is written so by all, it is the service


def test_a_native_service_has_the_path_that_consuls_ca_gives_it_whatever_it_says() -> None:
    data = answer(Connect={"Native": True}, Meta={"meshlib-identity": "spiffe://evil.example/x"})
    (found,) = health_of(data).found
    assert (found.native, found.instance.identity) == ("/ns/default/dc/dc1/svc/web", "")


def test_an_instance_of_another_datacenter_says_so() -> None:
    (found,) = health_of(answer(), "dc2").found
    assert found.instance.datacenter == "dc2"


@pytest.mark.parametrize("data", [b"", b"null", b"{}", b"[1]", b"[{}]", b'[{"Node":null}]', answer()[:-3]])
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        health_of(data)


def test_ids_are_unique_to_the_lease() -> None:
    instance = Instance("web", "h", 1, id="x")
    assert (service_id(instance), check_id(instance)) == ("web-x", "meshlib:web-x")
