"""Two hundred thousand calls and two thousand changes of configuration leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import meshlib
import meshlib.running
from meshlib.registries import Instance
from meshlib.registries.memory import MemoryRegistry
from meshlib.state.store import LINGER
from meshlib.wire.channels import LoopChannels
from meshlib.wire.message import Reply
from tests.integration.workers.fleet import PATIENCE, loaded
from tests.support import eventually_async

# Each lane makes its calls one after the other.
FAKED_LANES, FAKED_CALLS = 10, 15_000
REAL_LANES, REAL_CALLS = 16, 2_500
THREADS, THREAD_CALLS = 2, 5_000
CALLS = FAKED_LANES * FAKED_CALLS + REAL_LANES * REAL_CALLS + THREADS * THREAD_CALLS
SWAPS = 2_000
INSTANCES = 4
assert CALLS == 200_000

WARM = CALLS // 5
GROWTH = 8 * 1024 * 1024
NEW_OBJECTS = 10_000

RULES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  http:
  - route:
    - {{destination: {{host: reviews, subset: v1}}, weight: {weight}}}
    - {{destination: {{host: reviews, subset: v2}}, weight: {other}}}
    timeout: 30s
    retries: {{attempts: 2, perTryTimeout: 10s, retryOn: "reset,connect-failure"}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews}}
spec:
  host: reviews
  trafficPolicy:
    outlierDetection: {{consecutive5xxErrors: 5}}
    connectionPool: {{http: {{http2MaxRequests: 1000, maxRetries: 100}}}}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
---
apiVersion: meshlib/v1
kind: OutboundPolicy
metadata: {{name: reviews}}
spec: {{host: reviews, loadBalancer: {balancer}, circuitBreaker: {{errorPercent: 50}}}}
"""

BALANCERS = ("LEAST_REQUEST", "ROUND_ROBIN", "RANDOM", "PEAK_EWMA")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Answer(asyncio.Protocol):
    """Answers a request with the least there is."""

    transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)


class Empty:
    async def __aiter__(self) -> AsyncIterator[bytes]:
        return
        yield b""

    async def aclose(self) -> None:
        pass


class Nothing:
    """A channel that answers at once and from nowhere."""

    async def send(self, request: Any, timing: Any) -> Any:
        return Reply(200, b"OK", b"HTTP/1.1", [(b"content-length", b"0")], Empty())

    def close(self) -> None:
        pass


class Progress:
    """How many calls have ended, and what the process weighed when the first fifth of them had."""

    def __init__(self) -> None:
        self.calls = 0
        self.warm: tuple[int, int] | None = None

    def one_more(self) -> None:
        self.calls += 1
        if self.warm is None and self.calls >= WARM:
            self.warm = weight()


def weight() -> tuple[int, int]:
    """Resident bytes and the number of objects that the garbage collector knows."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(gc.get_objects())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Swapper:
    """Changes the configuration once for so many calls: documents, then endpoints, in turn."""

    def __init__(self, mesh: meshlib.Mesh, registry: MemoryRegistry, port: int) -> None:
        self.swaps = 0
        self._mesh = mesh
        self._registry = registry
        self._port = port
        self._leases: list[Any] = []

    def now(self) -> float:
        """A second for each swap, so that what was retired is forgotten while the test runs."""
        return time.monotonic() + self.swaps

    async def begin(self) -> None:
        for number in range(INSTANCES):
            await self._join(number)
        await self._registry.apply(loaded(RULES.format(weight=50, other=50, balancer="RANDOM")))
        await eventually_async(lambda: self._mesh.plan is not None and len(self._mesh.plan.clusters) == 2)

    async def swap(self) -> None:
        self.swaps += 1
        before = self._mesh.plan
        if self.swaps % 2:
            await self._join(INSTANCES + self.swaps)
            await self._leases.pop(0).withdraw()
        else:
            weight = 1 + self.swaps % 99
            rules = RULES.format(weight=weight, other=100 - weight, balancer=BALANCERS[self.swaps // 2 % 4])
            await self._registry.apply(loaded(rules))
        await eventually_async(lambda: self._mesh.plan is not before, PATIENCE)

    async def _join(self, number: int) -> None:
        """Register an instance at an address that nobody has had: all of 127.0.0.0/8 is this machine."""
        host = f"127.1.{number // 250}.{1 + number % 250}"
        instance = Instance("reviews", host, self._port, labels={"version": f"v{1 + number // 2 % 2}"})
        self._leases.append(await self._registry.register(instance))


@asynccontextmanager
async def server() -> AsyncIterator[int]:
    """A port of every local address where requests are answered."""
    found = await asyncio.get_running_loop().create_server(Answer, "0.0.0.0", 0)
    try:
        yield found.sockets[0].getsockname()[1]
    finally:
        found.close()


async def faked(transport: Any, progress: Progress) -> None:
    request = httpx.Request("GET", "http://reviews/42")
    for number in range(FAKED_CALLS):
        response = await transport.handle_async_request(request)
        assert response.status_code == 200
        await response.aread()
        progress.one_more()
        if number % 10 == 0:
            await asyncio.sleep(0)


async def real(client: httpx.AsyncClient, progress: Progress) -> None:
    for _ in range(REAL_CALLS):
        response = await client.get("http://reviews/42")
        assert response.text == "ok"
        progress.one_more()


def threaded(client: httpx.Client, progress: Callable[[], object]) -> None:
    for _ in range(THREAD_CALLS):
        assert client.get("http://reviews/42").text == "ok"
        progress()


async def swap_on_and_on(swapper: Swapper, progress: Progress) -> None:
    for due in range(0, CALLS, CALLS // SWAPS):
        await eventually_async(lambda due=due: progress.calls >= due, PATIENCE)  # type: ignore[misc]
        await swapper.swap()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc, and all of 127.0.0.0/8, are Linux's")
def test_calls_and_changes_at_length_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, files = set(threading.enumerate()), descriptors()
    registry = MemoryRegistry(clock=lambda: 0.0)
    with meshlib.Mesh(registry, state_dir=tmp_path) as mesh:
        run_and_weigh(mesh, registry, monkeypatch)
    gc.collect()
    assert descriptors() == files
    assert set(threading.enumerate()) <= threads


def run_and_weigh(
    mesh: meshlib.Mesh,
    registry: MemoryRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Make the calls and the changes, and look at what is left while the mesh is still open."""
    progress = Progress()
    files = descriptors()
    faked_transport: Any = mesh.async_transport()

    def open_nothing(channels: LoopChannels, *call: Any) -> Any:
        return Nothing() if channels._options is faked_transport._channels._options else opened(channels, *call)

    opened = LoopChannels._open
    monkeypatch.setattr(LoopChannels, "_open", open_nothing)

    async def scenario() -> int:
        loop = asyncio.get_running_loop()

        def one_more() -> None:
            loop.call_soon_threadsafe(progress.one_more)

        async with server() as port, meshlib.AsyncClient(mesh=mesh) as client:
            swapper = Swapper(mesh, registry, port)
            monkeypatch.setattr(meshlib.running, "time", SimpleNamespace(monotonic=swapper.now))
            await swapper.begin()
            with meshlib.Client(mesh=mesh) as sync:
                async with asyncio.TaskGroup() as group:
                    for _ in range(FAKED_LANES):
                        group.create_task(faked(faked_transport, progress))
                    for _ in range(REAL_LANES):
                        group.create_task(real(client, progress))
                    for _ in range(THREADS):
                        group.create_task(asyncio.to_thread(threaded, sync, one_more))
                    group.create_task(swap_on_and_on(swapper, progress))
                open_files = descriptors()
            # Whoever is retired lingers; then, with a change of documents, nobody is left but who is in force.
            swapper.swaps += int(LINGER) + 1
            await swapper.swap()
        await faked_transport.aclose()
        await eventually_async(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        return open_files

    open_files = asyncio.run(scenario())
    warm, end = progress.warm, weight()
    assert warm is not None
    assert progress.calls == CALLS
    for name, value in (
        ("bytes more", end[0] - warm[0]),
        ("objects more", end[1] - warm[1]),
        ("descriptors at the end", open_files),
        ("endpoints remembered", len(mesh._store)),
    ):
        print(f"{name}: {value}")
    plan = mesh.plan
    assert plan is not None
    states = {state for cluster in plan.clusters.values() for state in cluster.endpoints}
    assert set(mesh._store._endpoints.values()) == states
    assert [state.active for state in states] == [0] * len(states)
    assert all(one.state.requests.inside == one.state.retries.inside == 0 for one in plan.clusters.values())
    assert end[0] - warm[0] < GROWTH
    assert end[1] - warm[1] < NEW_OBJECTS
    assert open_files < files + 200
