"""Small GETs over loopback, one after another: CPU of the client, meshed against bare."""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import httpx2

from benchmarks.policy import View
from benchmarks.rounds import interleave, spread
from meshlib.wire.transport import Options, transports

CALLS = 300
UPSTREAM = str(Path(__file__).with_name("upstream.py"))


def meshed_view(port: int) -> View:
    """A plan with one instance of `reviews` at the port."""
    import random

    from benchmarks.policy import DOCUMENTS
    from meshlib.plan.compile import compile_plan
    from meshlib.plan.snapshot import Snapshot
    from meshlib.registries.base import Instance
    from meshlib.resources import Source, load
    from meshlib.state.store import StateStore

    instances = tuple(
        Instance(service="reviews", host="127.0.0.1", port=port, labels={"version": version}) for version in ("v1",)
    )
    resources = load(
        [Source("bench.yaml", DOCUMENTS.replace(b"weight: 90", b"weight: 100").replace(b"weight: 10}", b"weight: 0}"))]
    ).resources
    snapshot = Snapshot(instances, resources, "bench")
    return View(compile_plan(snapshot, "default", StateStore(), time.monotonic(), random.random))


async def calls(client: httpx.AsyncClient, url: str) -> float:
    """Microseconds of CPU a call."""
    for _ in range(20):
        await client.get(url)
    begun = time.process_time()
    for _ in range(CALLS):
        await client.get(url)
    return (time.process_time() - begun) / CALLS * 1e6


def run(rounds: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    server = subprocess.Popen([sys.executable, UPSTREAM, str(listener.fileno())], pass_fds=[listener.fileno()])
    listener.close()
    try:
        view = meshed_view(port)
        bare = f"http://127.0.0.1:{port}/42"

        def asynchronous(module: object, *, meshed: bool) -> float:
            async def turn() -> float:
                transport = transports(module).asynchronous(view, Options()) if meshed else None  # type: ignore[arg-type]
                async with module.AsyncClient(transport=transport) as client:  # type: ignore[attr-defined]
                    return await calls(client, "http://reviews/42" if meshed else bare)

            return asyncio.run(turn())

        def synchronous(*, meshed: bool) -> float:
            transport = transports(httpx).sync(view, Options()) if meshed else None
            with httpx.Client(transport=transport) as client:
                url = "http://reviews/42" if meshed else bare
                for _ in range(20):
                    client.get(url)
                begun = time.process_time()
                for _ in range(CALLS):
                    client.get(url)
                return (time.process_time() - begun) / CALLS * 1e6

        results = interleave(
            rounds,
            {
                "httpx async, bare": lambda: asynchronous(httpx, meshed=False),
                "httpx async, meshed": lambda: asynchronous(httpx, meshed=True),
                "httpx2 async, bare": lambda: asynchronous(httpx2, meshed=False),
                "httpx2 async, meshed": lambda: asynchronous(httpx2, meshed=True),
                "httpx sync, bare": lambda: synchronous(meshed=False),
                "httpx sync, meshed": lambda: synchronous(meshed=True),
            },
        )
    finally:
        server.terminate()
        server.wait(5)
    for name, values in results.items():
        print(f"  {name:28} {spread(values)} µs CPU a call")
    for kind in ("httpx async", "httpx2 async", "httpx sync"):
        pairs = zip(results[f"{kind}, meshed"], results[f"{kind}, bare"], strict=True)
        print(f"  {kind}: meshed / bare {statistics.median(meshed / bare for meshed, bare in pairs):.2f}")
