"""Where the demo's registry is: one SQLite file, or a Consul cluster of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

from meshlib.cli.output import CommandError

__all__ = ["PLACES", "ConsulPlace", "Place", "SQLitePlace"]

START_WITHIN = 30.0
LOOK_EVERY = 0.1
SERVERS = 3
PORTS = ("http", "server", "serf_lan")


WITH_US = """
exec 3<&0
"$0" "$@" </dev/null & agent=$!
{ read -r _ <&3; kill -9 $agent 2>/dev/null; } &
wait $agent
"""
"""Runs a program that reads nothing, and kills it when what it was given to read ends: whatever becomes of us."""


class Place(Protocol):
    """A registry for the demo.

    Attributes:
        url: of the registry.
        identity: MESHLIB_IDENTITY of every process.
        says: where instances register, in words.
    """

    url: str
    identity: str
    says: str

    def close(self) -> None:
        """End what was started."""


class SQLitePlace:
    """One file."""

    identity = "none"
    says = "in one SQLite file"

    def __init__(self, directory: Path, waiting: Callable[[str], None]) -> None:
        self.url = f"sqlite://{directory}/registry.db"

    def close(self) -> None:
        """Nothing was started."""


class ConsulPlace:
    """Three servers and the agent that processes talk to; certificates come from its CA.

    Args:
        directory: for data and logs.
        waiting: told what is being waited for.

    Raises:
        CommandError: there is no `consul`, or it doesn't start.
    """

    identity = "consul"
    says = "in Consul, whose CA gives each its certificate: every call is mTLS"

    def __init__(self, directory: Path, waiting: Callable[[str], None]) -> None:
        binary = os.environ.get("CONSUL_BIN") or shutil.which("consul")
        if binary is None:
            raise CommandError(
                "there is no consul on the PATH; install it, or say where it is: CONSUL_BIN=/path/to/consul"
            )
        self._binary = binary
        self._directory = directory
        self._waiting = waiting
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = dict(_ports([*(f"server-{number}" for number in range(1, SERVERS + 1)), "agent"]))
        try:
            for name in self._ports:
                self._start(name)
            self._until("the servers choose a leader", lambda: bool(self.leader()))
            self._until("the CA is ready", lambda: bool(self._ask("agent", "/v1/agent/connect/ca/roots")["Roots"]))
        except BaseException:
            self.close()
            raise
        self.url = f"consul://127.0.0.1:{self._ports['agent']['http']}"

    def kill_leader(self) -> str:
        """Kill -9 the server that leads; its name."""
        while not (name := self.leader()):
            time.sleep(LOOK_EVERY)
        _end([self._running.pop(name)])
        return name

    def leader(self) -> str:
        """The name of the server that leads, "" while there is none alive."""
        with contextlib.suppress(OSError, ValueError):
            address = self._ask("agent", "/v1/status/leader")
            alive = (name for name in self._running if address == f"127.0.0.1:{self._ports[name].get('server')}")
            return next(alive, "")
        return ""

    def close(self) -> None:
        """Kill them all: there is nothing to hand over."""
        _end(self._running.values())
        self._running.clear()

    def _start(self, name: str) -> None:
        server = name != "agent"
        ports = self._ports[name] | {"dns": -1, "grpc": -1, "serf_wan": -1}
        if not server:
            del ports["server"]
        config = {
            "node_name": name,
            "server": server,
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "data_dir": str(self._directory / f"consul-{name}"),
            "ports": ports,
            "retry_join": [f"127.0.0.1:{one['serf_lan']}" for one in self._ports.values()],
            "connect": {"enabled": True},
            "performance": {"raft_multiplier": 1},
            "log_level": "warn",
        } | ({"bootstrap_expect": SERVERS} if server else {})
        path = self._directory / f"consul-{name}.json"
        path.write_text(json.dumps(config))
        with self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603 - the binary the user named
                ["/bin/sh", "-c", WITH_US, self._binary, "agent", f"-config-file={path}"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: we end them
            )

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        began = time.monotonic()
        while True:
            self._waiting(f"{what} …")
            with contextlib.suppress(OSError, ValueError, KeyError):
                if holds():
                    return
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise CommandError(f"consul {name} ended with {process.returncode}; its log:\n{self._tail(name)}")
            if time.monotonic() - began > START_WITHIN:
                raise CommandError(f"{what}: not within {START_WITHIN:.0f} s; the agent's log:\n{self._tail('agent')}")
            time.sleep(LOOK_EVERY)

    def _ask(self, name: str, path: str) -> Any:
        url = f"http://127.0.0.1:{self._ports[name]['http']}{path}"
        with urllib.request.urlopen(url, timeout=2) as answer:
            return json.load(answer)

    def _log(self, name: str) -> Path:
        return self._directory / f"consul-{name}.log"

    def _tail(self, name: str) -> str:
        lines = self._log(name).read_text("utf-8", "replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-15:]) or "  (empty)"


PLACES: dict[str, Callable[[Path, Callable[[str], None]], Place]] = {"sqlite": SQLitePlace, "consul": ConsulPlace}


def _end(processes: Collection[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        process.wait()


def _ports(names: list[str]) -> Iterator[tuple[str, dict[str, int]]]:
    """Free ports for each; all are held until the last is found, so that no two are the same."""
    with contextlib.ExitStack() as held:
        found: dict[str, dict[str, int]] = {}
        for name in names:
            found[name] = {}
            for purpose in PORTS:
                sock = held.enter_context(socket.socket())
                sock.bind(("127.0.0.1", 0))
                found[name][purpose] = sock.getsockname()[1]
    yield from found.items()
