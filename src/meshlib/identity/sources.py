"""From what MESHLIB_IDENTITY says to where the identity comes from."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from meshlib.errors import SettingsError
from meshlib.identity.material import IdentitySource

__all__ = ["check_url", "open_source"]

EXPECTED = "expected none, files:///directory, consul, consul://host:port or spiffe:///socket"


def check_url(
    url: str,
    source_name: str,
    *,
    service: str | None,
    registry: str,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """See that `open_source` is going to understand this, without opening anything.

    Args:
        url: what the variable or the argument says.
        source_name: which one says it, for messages.
        service: MESHLIB_SERVICE.
        registry: MESHLIB_REGISTRY.
        environ: has SPIFFE_ENDPOINT_SOCKET, which `spiffe:` alone stands for, and CONSUL_*.

    Raises:
        SettingsError: names the variable, the value and what is allowed.
    """
    said = f"{source_name} is {url!r}"
    kind, colon, rest = url.partition(":")
    if kind == "none" and not colon:
        return
    if kind == "files":
        _path(said, rest, "files:///directory, absolute")
    elif kind == "consul":
        _check_consul(said, url, service, registry, environ)
    elif kind == "spiffe":
        _socket(said, rest, environ)
        _needs(said, "spiffe", "spiffe")
    else:
        raise SettingsError(f"{said}; {EXPECTED}")


def open_source(
    url: str, *, service: str | None, registry: str, environ: Mapping[str, str] = os.environ
) -> IdentitySource:
    """Where the identity comes from. To be called on the agent's thread; see `check_url`, which is called before.

    Args:
        url: what MESHLIB_IDENTITY says, other than `none`.
        service: MESHLIB_SERVICE.
        registry: MESHLIB_REGISTRY.
        environ: see `check_url`.

    Raises:
        SettingsError: as `check_url`.
    """
    check_url(url, "MESHLIB_IDENTITY", service=service, registry=registry, environ=environ)
    kind, _, rest = url.partition(":")
    if kind == "files":
        from meshlib.identity.files import FilesIdentity

        return FilesIdentity(_path(url, rest, ""))
    if kind == "spiffe":
        from meshlib.identity.workload import WorkloadIdentity

        return WorkloadIdentity(_socket(url, rest, environ))
    if kind == "consul" and service is not None:
        from meshlib.identity.consul import ConsulIdentity
        from meshlib.registries.consul.address import consul_settings
        from meshlib.registries.consul.client import ConsulClient

        return ConsulIdentity(ConsulClient(consul_settings(_consul_url(url, registry), environ)), service)
    raise SettingsError(f"MESHLIB_IDENTITY is {url!r}, which has no source")


def _check_consul(said: str, url: str, service: str | None, registry: str, environ: Mapping[str, str]) -> None:
    if service is None:
        raise SettingsError(f"{said} and MESHLIB_SERVICE isn't set; Consul issues certificates to services")
    _needs(said, "consul", "consul")
    where = _consul_url(url, registry)
    if not where.startswith("consul:"):
        raise SettingsError(
            f"{said} and the registry is {registry!r}; expected a registry consul://… or the address"
            " here, as consul://127.0.0.1:8500"
        )
    from meshlib.registries.consul.address import consul_settings

    consul_settings(where, environ)


def _consul_url(url: str, registry: str) -> str:
    return registry if url in {"consul", "consul:"} else url


def _socket(said: str, rest: str, environ: Mapping[str, str]) -> Path:
    if rest in {"", "//"}:
        variable = environ.get("SPIFFE_ENDPOINT_SOCKET", "")
        if not variable:
            raise SettingsError(f"{said} and SPIFFE_ENDPOINT_SOCKET isn't set; expected spiffe:///path/of.sock")
        scheme, _, path = variable.partition(":")
        if scheme != "unix" or not path.startswith("/"):
            raise SettingsError(f"SPIFFE_ENDPOINT_SOCKET is {variable!r}; expected unix:///path/of.sock")
        return Path("/" + path.lstrip("/"))
    return _path(said, rest, "spiffe:///path/of.sock")


def _path(said: str, rest: str, expected: str) -> Path:
    path = unquote(rest.removeprefix("//"))
    if not path.startswith("/") or rest.startswith("////") or "\0" in path:
        raise SettingsError(f"{said}; expected {expected}")
    return Path(path)


def _needs(said: str, module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise SettingsError(f"{said}, which needs the package {module}; pip install 'servicemesh[{extra}]'")
