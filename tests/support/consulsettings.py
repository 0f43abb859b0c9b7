"""The configuration of a Consul agent in tests: Consul's own defaults, but for what loopback and waiting demand."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.ports import LOOPBACK

if TYPE_CHECKING:
    from tests.support.consul import ConsulAgent

__all__ = ["merged_with", "settings_of", "version_of"]


def settings_of(agent: ConsulAgent, version: tuple[int, ...]) -> dict[str, Any]:
    """Return an agent's configuration: Consul's own defaults but for addresses and what a test waits for."""
    off = {"dns": -1, "grpc": -1} | ({"grpc_tls": -1} if version >= (1, 14) else {})
    ports = agent.ports._asdict() | off
    if "cert_file" not in agent.config and "tls" not in agent.config:
        ports["https"] = -1
    settings: dict[str, Any] = {
        "node_name": agent.name,
        "datacenter": agent.datacenter,
        "primary_datacenter": agent.primary,
        "data_dir": str(agent.folder / "data"),
        "bind_addr": LOOPBACK,
        "client_addr": LOOPBACK,
        "ports": ports,
        "retry_join": [f"{LOOPBACK}:{other.ports.serf_lan}" for other in agent.join],
        "retry_interval": "1s",
        "performance": {"raft_multiplier": 1},  # a lost leader is noticed in a second or two, as in production
        "connect": {"enabled": agent.connect},
        "disable_update_check": True,
    }
    if agent.servers:
        settings |= {
            "server": True,
            "bootstrap_expect": agent.servers,
            "retry_join_wan": [f"{LOOPBACK}:{other.ports.serf_wan}" for other in agent.join_wan],
            "retry_interval_wan": "1s",
        }
    if agent.token:
        settings["acl"] = _acl(agent, version)
    return settings


def _acl(agent: ConsulAgent, version: tuple[int, ...]) -> dict[str, Any]:
    tokens = {"agent": agent.token}
    if agent.servers:
        tokens["initial_management" if version >= (1, 11) else "master"] = agent.token
        tokens["replication"] = agent.token
    return {"enabled": True, "default_policy": "deny", "tokens": tokens}


def merged_with(settings: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for key, value in more.items():
        mine = merged.get(key)
        merged[key] = merged_with(mine, value) if isinstance(mine, dict) and isinstance(value, Mapping) else value
    return merged


@functools.cache
def version_of(binary: Path) -> tuple[int, ...]:
    said = subprocess.run([binary, "version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"Consul v(\d+)\.(\d+)", said)
    assert found, f"{binary} version said {said!r}"
    return tuple(int(part) for part in found.groups())
