"""A catalog of 1 000 services with 100 instances each costs a caller of ten of them what those ten cost."""

from __future__ import annotations

import json
import os
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import meshlib
from tests.support import eventually
from tests.support.consul import ConsulAgent, StartConsul
from tests.support.counted import CountedCut

SERVICES, INSTANCES = 1000, 100
CALLED = [f"many-{number}" for number in range(0, SERVICES, SERVICES // 10)]
AT_ONCE = 64  # Consul's limit for a transaction

ELSEWHERE = 8
"""Watches that are there whoever is called: documents, five kinds of config entries, and two to spare."""

QUIET = 5.0
MEGABYTE = 2**20


def node(number: int) -> str:
    return f"machine-{number}"


def instance(service: int, number: int, port: int, **more: Any) -> dict[str, Any]:
    """One operation. All of 127/8 is this machine, so that every instance has an address of its own and is real."""
    name = f"many-{service}"
    address = f"127.1.{number}.{service % 250 + 1}"
    said = {"ID": f"{name}-{number}", "Service": name, "Address": address, "Port": port} | more
    return {"Service": {"Verb": "set", "Node": node(number), "Service": said}}


def transact(agent: ConsulAgent, operations: list[dict[str, Any]]) -> None:
    chunks = [operations[start : start + AT_ONCE] for start in range(0, len(operations), AT_ONCE)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda chunk: agent.put("/v1/txn", chunk), chunks))
    assert not any(json.loads(answer.body)["Errors"] for answer in answers)


class Served(socketserver.StreamRequestHandler):
    """Answers every request, on a connection that stays open, with the address it came to."""

    def handle(self) -> None:
        while self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            body = self.connection.getsockname()[0].encode()
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


class Everywhere(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 100


@contextmanager
def serving() -> Iterator[int]:
    """A port at which all addresses of loopback answer."""
    with Everywhere(("0.0.0.0", 0), Served) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def port() -> Iterator[int]:
    if sys.platform != "linux":
        pytest.skip("only Linux answers at every address of 127/8, and tells what a thread used")
    with serving() as found:
        yield found


def resident() -> int:
    """Bytes of memory this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def agent_seconds() -> float:
    """CPU seconds that the mesh's thread has had."""
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "meshlib-agent")
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def test_a_caller_of_ten_services_among_a_thousand_watches_ten(
    start_consul: StartConsul, port: int, tmp_path: Path
) -> None:
    agent = start_consul()
    began = time.monotonic()
    nodes = [{"Node": {"Verb": "set", "Node": {"Node": node(n), "Address": "127.0.0.1"}}} for n in range(INSTANCES)]
    transact(agent, nodes)
    transact(agent, [instance(s, n, port) for s in range(SERVICES) for n in range(INSTANCES)])
    registered = time.monotonic() - began
    assert len(agent.get("/v1/catalog/services")) == SERVICES + 1

    with CountedCut(agent.address) as way:
        before = resident()
        mesh = meshlib.Mesh(f"consul://{way.address}", state_dir=tmp_path)
        with mesh, meshlib.Client(mesh=mesh) as client:
            first, again = [], []
            for name in CALLED:
                for took in (first, again):
                    start = time.monotonic()
                    reply = client.get(f"http://{name}/")
                    took.append(time.monotonic() - start)
                    assert reply.status_code == 200
            assert mesh.status().endpoints == len(CALLED) * INSTANCES
            grown = resident() - before

            wanted = sorted(f"/v1/health/service/{name}" for name in CALLED)
            eventually(lambda: sorted(held.path for held in way.held if "/health/" in held.path) == wanted)
            assert all(held.blocking for held in way.held)
            assert len(way.held) <= len(CALLED) + ELSEWHERE
            assert {asked.path for asked in way.asked if "/health/" in asked.path} == set(wanted)
            assert not [asked for asked in way.asked if asked.path.startswith("/v1/catalog/")]

            # At rest: other services come, go and change all the time, and nobody here takes notice.
            asked, used, until = len(way.asked), agent_seconds(), time.monotonic() + QUIET
            changed = 0
            while time.monotonic() < until:
                others = [instance(s, changed % INSTANCES, port, Tags=[str(changed)]) for s in range(1, 60)]
                transact(agent, others)
                changed += 1
                time.sleep(0.1)
            share = (agent_seconds() - used) / QUIET
            assert changed >= 10
            assert way.asked[asked:] == []
            assert share < 0.02

            # And what is called is still followed.
            gone = {"Service": CALLED[0], "ID": f"{CALLED[0]}-0"}
            transact(agent, [{"Service": {"Verb": "delete", "Node": node(0), "Service": gone}}])
            eventually(lambda: mesh.status().endpoints == len(CALLED) * INSTANCES - 1, 2.0)
    print(
        f"{SERVICES * INSTANCES} instances registered in {registered:.1f} s; first calls"
        f" {min(first) * 1000:.0f} to {max(first) * 1000:.0f} ms, second {max(again) * 1000:.1f} ms at most;"
        f" {grown / MEGABYTE:.1f} MB more; at rest {share * 100:.2f} % of a core"
    )
    assert max(first) < 2.0
    assert grown < 64 * MEGABYTE
