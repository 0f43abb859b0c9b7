"""MESHLIB_* variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib.errors import SettingsError
from meshlib.settings import settings_from

HOME = {"XDG_STATE_HOME": "/state"}


def test_without_any_variable_there_is_an_embedded_registry_for_this_user() -> None:
    settings = settings_from(HOME)
    assert settings.service is None
    assert settings.namespace == "default"
    assert settings.registry.startswith("sqlite:///state/meshlib/")
    assert settings.outbound == "allow-any"


def test_variables_are_read() -> None:
    settings = settings_from(
        {
            "MESHLIB_SERVICE": "reviews",
            "MESHLIB_NAMESPACE": "shop",
            "MESHLIB_REGISTRY": "file:///etc/mesh",
            "MESHLIB_ADDRESS": "[::1]:8080",
            "MESHLIB_LABELS": "version=v2, track=canary",
            "MESHLIB_LOCALITY": "eu/west/a",
            "MESHLIB_OUTBOUND": "registry-only",
            "MESHLIB_STATE_DIR": "/var/lib/mesh",
            "MESHLIB_IDENTITY": "files:///etc/tls",
            "MESHLIB_TRUSTED_HOPS": "spiffe://example.org/gateway, 10.1.0.0/16",
            "MESHLIB_LIMITS": "redis://127.0.0.1",
        }
    )
    assert settings == (
        "reviews",
        "shop",
        "file:///etc/mesh",
        ("::1", 8080),
        {"version": "v2", "track": "canary"},
        "eu/west/a",
        "registry-only",
        Path("/var/lib/mesh"),
        "files:///etc/tls",
        ("spiffe://example.org/gateway", "10.1.0.0/16"),
        "redis://127.0.0.1",
    )


def test_an_argument_wins_over_its_variable() -> None:
    assert settings_from({**HOME, "MESHLIB_NAMESPACE": "shop"}, namespace="till").namespace == "till"


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("MESHLIB_SERVICE", "Reviews!", "a-z"),
        ("MESHLIB_NAMESPACE", "-shop", "a-z"),
        ("MESHLIB_REGISTRY", "mesh.db", "sqlite:///"),
        ("MESHLIB_ADDRESS", "8080", "host:port"),
        ("MESHLIB_ADDRESS", "host:99999", "host:port"),
        ("MESHLIB_LABELS", "version", "name=value"),
        ("MESHLIB_LOCALITY", "eu/west/a/rack", "region/zone/subzone"),
        ("MESHLIB_OUTBOUND", "open", "registry-only"),
        ("MESHLIB_IDENTITY", "vault", "none"),
        ("MESHLIB_TRUSTED_HOPS", "gateway", "IP networks"),
    ],
)
def test_a_bad_value_names_the_variable_the_value_and_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_from({**HOME, variable: value})
    message = str(caught.value)
    assert variable in message
    assert value in message
    assert allowed in message


@pytest.mark.parametrize("hops", ["10.1.0.0/16,::1", ["10.1.0.0/16", "::1"]])
def test_trusted_hops_are_a_list_or_as_the_variable_has_them(hops: str | list[str]) -> None:
    assert settings_from(HOME, trusted_hops=hops).trusted_hops == ("10.1.0.0/16", "::1")


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert settings_from({**HOME, "MESHLIB_SERVICE": "", "MESHLIB_OUTBOUND": ""}).service is None
