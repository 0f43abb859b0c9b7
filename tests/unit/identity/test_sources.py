"""What MESHLIB_IDENTITY may say, and what is said of anything else."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import pytest

from meshlib.errors import SettingsError
from meshlib.identity.sources import check_url, open_source

CONSUL = "consul://127.0.0.1:8500"


@pytest.mark.parametrize(
    ("url", "registry", "environ", "opened"),
    [
        ("files:///etc/keys", "sqlite:///x", {}, "files:///etc/keys"),
        ("files:///with%20blank", "sqlite:///x", {}, "files:///with blank"),
        ("consul", CONSUL, {}, CONSUL),
        ("consul", "consul:", {"CONSUL_HTTP_ADDR": "10.0.0.5:8501"}, "consul://10.0.0.5:8501"),
        ("consul://10.0.0.1:8500", "sqlite:///x", {}, "consul://10.0.0.1:8500"),
        ("consul://10.0.0.1:8500", CONSUL, {}, "consul://10.0.0.1:8500"),
        ("spiffe:///run/spire/agent.sock", "sqlite:///x", {}, "spiffe:///run/spire/agent.sock"),
        ("spiffe:", "sqlite:///x", {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/a.sock"}, "spiffe:///run/a.sock"),
        ("spiffe", "sqlite:///x", {"SPIFFE_ENDPOINT_SOCKET": "unix:/run/a.sock"}, "spiffe:///run/a.sock"),
        ("spiffe:///run/b.sock", "sqlite:///x", {"SPIFFE_ENDPOINT_SOCKET": "tcp://1.2.3.4:1"}, "spiffe:///run/b.sock"),
    ],
)
def test_each_is_opened(url: str, registry: str, environ: Mapping[str, str], opened: str) -> None:
    check_url(url, "MESHLIB_IDENTITY", service="web", registry=registry, environ=environ)
    assert open_source(url, service="web", registry=registry, environ=environ).url == opened


def test_none_is_nothing_to_open() -> None:
    check_url("none", "MESHLIB_IDENTITY", service=None, registry=CONSUL, environ={})


@pytest.mark.parametrize(
    ("url", "service", "registry", "environ", "said"),
    [
        ("foo", "web", CONSUL, {}, "expected none, files:///directory, consul"),
        ("none:", "web", CONSUL, {}, "expected none, files:///directory, consul"),
        ("files:", "web", CONSUL, {}, "expected files:///directory, absolute"),
        ("files://keys", "web", CONSUL, {}, "expected files:///directory, absolute"),
        ("files:////keys", "web", CONSUL, {}, "expected files:///directory, absolute"),
        ("consul", None, CONSUL, {}, "MESHLIB_SERVICE isn't set"),
        ("consul", "web", "sqlite:///x", {}, "the registry is 'sqlite:///x'; expected a registry consul://"),
        ("spiffe:", "web", CONSUL, {}, "SPIFFE_ENDPOINT_SOCKET isn't set"),
        ("spiffe://host/socket", "web", CONSUL, {}, "expected spiffe:///path/of.sock"),
    ],
)
def test_refused_by_name(url: str, service: str | None, registry: str, environ: Mapping[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_url(url, "MESHLIB_IDENTITY", service=service, registry=registry, environ=environ)
    assert str(caught.value).startswith(f"MESHLIB_IDENTITY is {url!r}")
    assert said in str(caught.value)


def test_a_workload_api_over_tcp_is_refused_by_its_variable() -> None:
    environ = {"SPIFFE_ENDPOINT_SOCKET": "tcp://127.0.0.1:8081"}
    with pytest.raises(SettingsError, match=r"SPIFFE_ENDPOINT_SOCKET is 'tcp://127\.0\.0\.1:8081'; expected unix:///"):
        check_url("spiffe:", "MESHLIB_IDENTITY", service=None, registry=CONSUL, environ=environ)


@pytest.mark.parametrize("url", ["spiffe:///run/a.sock", "consul"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'servicemesh\[(spiffe|consul)\]'"):
        check_url(url, "MESHLIB_IDENTITY", service="web", registry=CONSUL, environ={})
