"""Instances, merging, polling and the choice of a registry."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from meshlib.errors import RegistryError, SettingsError
from meshlib.registries import default_url, open_registry
from meshlib.registries.base import EMPTY, Instance, Update, address, make_update, merge, poll
from meshlib.registries.memory import MemoryRegistry
from meshlib.resources import Source


def test_an_instance_gets_an_id_of_its_own() -> None:
    assert Instance("web", "h", 1).id != Instance("web", "h", 1).id


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("service", "Web"),
        ("service", "web.shop"),
        ("service", "x" * 64),
        ("namespace", "-a"),
        ("host", ""),
        ("host", "a b"),
        ("host", "http://a"),
        ("port", 0),
        ("port", 65536),
        ("weight", 0),
        ("id", "../../etc/passwd"),
        ("id", ".hidden"),
        ("locality", "eu\n"),
        ("labels", {"version": "v\0"}),
        ("labels", {str(number): "" for number in range(65)}),
    ],
)
def test_a_value_that_is_not_allowed_is_named(field: str, value: Any) -> None:
    sound: dict[str, Any] = {"service": "web", "host": "127.0.0.1", "port": 80}
    with pytest.raises(SettingsError, match=field.removesuffix("s")):
        Instance(**{**sound, field: value})


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert address("::1", 80) == "[::1]:80"
    assert merge([Instance("web", "::1", 80)])[0][0].id == "[::1]:80"


def test_the_same_address_in_two_services_is_two_instances() -> None:
    merged, warnings = merge([Instance("web", "h", 1), Instance("api", "h", 1), Instance("web", "h", 1, namespace="b")])
    assert [(instance.namespace, instance.service) for instance in merged] == [
        ("b", "web"),
        ("default", "api"),
        ("default", "web"),
    ]
    assert warnings == ()


@pytest.mark.parametrize("order", [("", "spiffe://a/b"), ("spiffe://a/b", ""), ("spiffe://a/b", "spiffe://a/c")])
def test_a_lease_without_an_identity_brings_nobody_back_to_plain_text(order: tuple[str, str]) -> None:
    leases = [Instance("web", "h", 1, id=f"lease-{number}", identity=said) for number, said in enumerate(order)]
    (merged,), (warning,) = merge(reversed(leases))
    assert merged.identity == "spiffe://a/b"
    assert "web at h:1 is registered with different identities; that of lease lease-" in warning
    (alike,), none = merge([leases[0], leases[0]])
    assert (alike.identity, none) == (order[0], ())


def test_the_version_tells_apart_documents_that_are_cut_differently() -> None:
    assert make_update((), [Source("a", b"bc")]).version != make_update((), [Source("ab", b"c")]).version


@pytest.mark.anyio
async def test_polling_tells_an_error_once_and_the_snapshot_again_after_it() -> None:
    away, locked = RegistryError("r:", "away"), RegistryError("r:", "locked")
    other = make_update((), [Source("a", b"")])
    looks: list[Update | RegistryError | None] = [EMPTY, None, EMPTY, away, away, locked, None, EMPTY, other]
    wanted_anyhow = []

    def look(again: bool) -> Update | None:
        wanted_anyhow.append(again)
        item = looks[len(wanted_anyhow) - 1]
        if isinstance(item, RegistryError):
            raise item
        return item

    seen = []
    async with aclosing(poll(look, interval=0)) as items:
        async for item in items:
            seen.append(item)
            if item is other:
                break
    assert seen == [EMPTY, away, locked, EMPTY, other]
    assert wanted_anyhow == [True, False, False, False, True, True, True, True, False]


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("sqlite:///var/lib/mesh.db", "sqlite:///var/lib/mesh.db"),
        ("sqlite:/var/lib/mesh.db", "sqlite:///var/lib/mesh.db"),
        ("file:///etc/mesh", "file:///etc/mesh"),
        ("memory:orders", "memory:orders"),
        (default_url(Path("/home/a")), "sqlite:///home/a/registry.db"),
    ],
)
def test_a_registry_is_chosen_by_the_scheme_of_its_url(url: str, full: str) -> None:
    assert open_registry(url).url == full


def test_a_relative_path_is_taken_from_the_working_directory_and_a_tilde_from_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/a")
    assert open_registry("sqlite://./mesh.db").url == f"sqlite://{tmp_path}/mesh.db"
    assert open_registry("file://~/mesh").url == "file:///home/a/mesh"


@pytest.mark.parametrize("url", ["", "mesh.db", "etcd://a", "sqlite:", "sqlite://", "file:///", "file://\0"])
def test_a_url_that_is_not_allowed_is_named_with_its_variable(url: str) -> None:
    with pytest.raises(SettingsError, match="MESHLIB_REGISTRY") as caught:
        open_registry(url)
    assert repr(url) in str(caught.value)


def test_memory_registries_of_one_name_are_one_while_somebody_holds_it() -> None:
    first = open_registry("memory:test-base")
    assert open_registry("memory:test-base") is first
    assert open_registry("memory:") is not open_registry("memory:")


@pytest.mark.anyio
async def test_a_memory_registry_can_be_broken_and_healed() -> None:
    registry = MemoryRegistry()
    async with aclosing(registry.watch()) as items:
        assert await anext(items) == EMPTY
        registry.fail("away")
        assert "away" in str(await anext(items))
        with pytest.raises(RegistryError, match="away"):
            await registry.register(Instance("web", "h", 1))
        with pytest.raises(RegistryError, match="away"):
            await registry.snapshot()
        registry.heal()
        assert await anext(items) == EMPTY


@pytest.mark.parametrize("host", ["-x", ".", "_x", "%"])
def test_a_host_that_no_lease_could_be_named_after_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match="host of an instance"):
        Instance("reviews", host, 80)


@pytest.mark.parametrize("host", ["::1", "fe80::1%eth0", "10.0.0.1", "reviews-1.example", "a" * 253])
def test_every_host_that_is_accepted_can_be_merged(host: str) -> None:
    merged, _ = merge([Instance("reviews", host, 65535)])
    assert merged[0].host == host
