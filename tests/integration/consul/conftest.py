"""Agents for the tests of this folder; see `tests.support.consul`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.consul import SHARED, ConsulAgent, ConsulCluster, StartCluster, StartConsul
from tests.support.parts import part


@pytest.fixture(autouse=True)
def no_variables_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test speak to the developer's own Consul, nor with their token."""
    for name in list(os.environ):
        if name.startswith("CONSUL_") and name != "CONSUL_BIN":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def consul_binary() -> Path:
    """The program; skips where it can't be had."""
    return part("consul")


@pytest.fixture(scope="session")
def consul(consul_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    """One agent for all tests of a worker process, with its CA on and ACLs off. Use names of your own."""
    agent = ConsulAgent(consul_binary, tmp_path_factory.mktemp("consul"), config=SHARED)
    with contextlib.closing(agent):
        agent.start()
        yield agent


@pytest.fixture
def start_cluster(consul_binary: Path, tmp_path: Path) -> Iterator[StartCluster]:
    """Datacenters of the test's own, ended with it."""
    with contextlib.ExitStack() as stack:

        def start(**arguments: Any) -> ConsulCluster:
            cluster = ConsulCluster(consul_binary, tmp_path / "consul", **arguments)
            stack.callback(cluster.close)
            cluster.start()
            return cluster

        yield start


@pytest.fixture
def start_consul(start_cluster: StartCluster) -> StartConsul:
    """Agents of the test's own, ended with it; each a server by itself in a datacenter of its own."""

    def start(**arguments: Any) -> ConsulAgent:
        return start_cluster(servers=1, **arguments).servers[0]

    return start
