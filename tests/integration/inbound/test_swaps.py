"""Documents that change a hundred times a second under load: each request is judged by one plan, and none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import uvicorn

from meshlib import ASGIMiddleware, Mesh
from meshlib.registries.memory import MemoryRegistry
from meshlib.resources import Resource, Source, load
from tests.support import eventually

CALLERS = 6
EVERY = 0.005
"""Seconds between two changes; what is left of them when all shares one interpreter is a hundred a second and more."""

SWAPS = 200
LONGEST = 60.0

POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: side}}
spec:
  rules: [{{to: [{{operation: {{paths: ["/{side}", "/{side}/*"]}}}}]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  http:
  - route: [{{destination: {{host: reviews}}}}]
    corsPolicy: {{allowOrigins: [{{exact: "*"}}], exposeHeaders: [{side}]}}
---
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {{name: faults}}
spec:
  faults:
  - match: [{{uri: {{regex: "/[ab]/slow"}}}}]
    fault:
      delay: {{fixedDelay: 15ms, percentage: {{value: 100}}}}
      abort: {{httpStatus: {status}, percentage: {{value: 100}}}}
"""
"""The first step of admission tells which side is in force, a later one lets only that side in, and the last one, after
a pause that outlives a plan, has a status of the side's own."""

STATUS = {"a": 590, "b": 591}
PATHS = ("/a", "/b", "/a/slow", "/b/slow")


def documents(side: str) -> tuple[Resource, ...]:
    loaded = load([Source(side, POLICY.format(side=side, status=STATUS[side]).encode())])
    assert not loaded.problems
    return loaded.resources


def expected(path: str, side: str) -> int:
    """The status of a request under the policies of one side."""
    if path[1] != side:
        return 403
    return STATUS[side] if path.endswith("/slow") else 200


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@contextlib.contextmanager
def served(mesh: Mesh) -> Iterator[str]:
    """A uvicorn of its own, on a thread."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(ASGIMiddleware(app, mesh), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield "http://{}:{}".format(*listening.getsockname())
        finally:
            server.should_exit = True
            thread.join()


def test_no_request_sees_half_a_policy_and_none_is_lost() -> None:
    registry = MemoryRegistry()
    sides = [documents("a"), documents("b")]
    asyncio.run(registry.apply(sides[0]))
    mesh = Mesh(registry, service="reviews", address="127.0.0.1:1")
    swaps = 0
    seen: Counter[tuple[str, int]] = Counter()
    halves: list[tuple[str, int, str]] = []

    async def change(over: asyncio.Event) -> None:
        nonlocal swaps
        turn = 0
        while swaps < SWAPS:
            turn += 1
            before = mesh.plan
            await registry.apply(sides[turn % 2])
            await asyncio.sleep(EVERY)
            swaps += mesh.plan is not before
        over.set()

    async def call(url: str, over: asyncio.Event, first: int) -> None:
        async with httpx.AsyncClient(base_url=url, headers={"origin": "https://page"}) as client:
            turn = first
            while not over.is_set():
                path = PATHS[turn % len(PATHS)]
                turn += 1
                response = await client.get(path)
                side = response.headers["access-control-expose-headers"]
                seen[path, response.status_code] += 1
                if response.status_code != expected(path, side):
                    halves.append((path, response.status_code, side))

    async def run(url: str) -> None:
        over = asyncio.Event()
        async with asyncio.timeout(LONGEST), asyncio.TaskGroup() as tasks:
            tasks.create_task(change(over))
            for number in range(CALLERS):
                tasks.create_task(call(url, over, number))

    with mesh, served(mesh) as url:
        asyncio.run(run(url))
    assert halves == []
    assert {one for one, count in seen.items() if count} == {
        (path, expected(path, side)) for path in PATHS for side in "ab"
    }
