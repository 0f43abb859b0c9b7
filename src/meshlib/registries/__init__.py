"""Where snapshots come from, and where we register."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from meshlib.errors import SettingsError
from meshlib.registries.base import Instance, Lease, Registry, Update

__all__ = ["Instance", "Lease", "Registry", "Update", "default_url", "open_registry"]


def open_registry(url: str, service: str | None = None) -> Registry:
    """The registry at `url`: `sqlite:///path`, `file:///dir-or-file`, `consul://host:port`, or `memory:name`.

    Nothing is read or created yet. Paths may begin with `~` and are made absolute. The options of a `consul:` URL are
    those of `meshlib.registries.consul.address`. A `memory:` registry is one within a process.

    Args:
        url: MESHLIB_REGISTRY.
        service: the service that this process is, so that a registry which has a say in who may call it tells of that
            from the first snapshot on, before the service is registered.

    Raises:
        SettingsError: the scheme is unknown, the path is missing, or what Consul needs is wrong or not installed.
    """
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "memory":
        from meshlib.registries.memory import MemoryRegistry

        return MemoryRegistry.named(rest)
    if colon and scheme == "sqlite":
        from meshlib.registries.sqlite import SQLiteRegistry

        return SQLiteRegistry(_path(url, rest))
    if colon and scheme == "file":
        from meshlib.registries.file import FileRegistry

        return FileRegistry(_path(url, rest))
    if colon and scheme == "consul":
        return _consul(url, service)
    expected = "sqlite:///path, file:///dir-or-file or consul://host:port"
    raise SettingsError(f"the registry (MESHLIB_REGISTRY) is {url!r}; expected {expected}")


def default_url(state_dir: Path) -> str:
    """The registry of whoever names none: one file in `state_dir`, shared by all services of this user."""
    return f"sqlite://{state_dir / 'registry.db'}"


def _consul(url: str, service: str | None) -> Registry:
    from meshlib.registries.consul.address import consul_settings

    settings = consul_settings(url)
    if importlib.util.find_spec("consul") is None:
        way_out = "which needs py-consul: pip install 'servicemesh[consul]'"
        raise SettingsError(f"the registry (MESHLIB_REGISTRY) is {settings.url!r}, {way_out}")
    from meshlib.registries.consul.client import ConsulClient
    from meshlib.registries.consul.registry import ConsulRegistry

    return ConsulRegistry(ConsulClient(settings), service=service)


def _path(url: str, rest: str) -> Path:
    path = rest.removeprefix("//")
    if not path.strip("/") or "\0" in path:
        expected = "a path after it, as in sqlite:///var/lib/mesh.db"
        raise SettingsError(f"the registry (MESHLIB_REGISTRY) is {url!r}; expected {expected}")
    return Path(os.path.abspath(os.path.expanduser(path)))
