"""A whole policy pass beyond a transport that does nothing."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest import mock

import httpx

from benchmarks.rounds import interleave, spread
from meshlib.identity.outgoing import PeerContexts
from meshlib.plan.compile import compile_plan
from meshlib.plan.plan import Plan
from meshlib.plan.snapshot import Snapshot
from meshlib.registries.base import Instance
from meshlib.resources import Source, load
from meshlib.state.store import StateStore
from meshlib.wire.channels import LoopChannels, SyncChannels
from meshlib.wire.message import Reply
from meshlib.wire.transport import Options, transports

CALLS = 2000

DOCUMENTS = b"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
    timeout: 2s
    retries: {attempts: 2, perTryTimeout: 500ms, retryOn: "5xx,reset,connect-failure"}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    loadBalancer: {simple: LEAST_REQUEST}
    outlierDetection: {consecutive5xxErrors: 5, maxEjectionPercent: 50}
    connectionPool: {http: {http2MaxRequests: 1000, maxRetries: 100}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: meshlib/v1
kind: OutboundPolicy
metadata: {name: reviews}
spec: {host: reviews, circuitBreaker: {errorPercent: 50}}
"""


class View:
    """A mesh with a plan and nothing else."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.peers = PeerContexts(None)

    def ready(self) -> Plan:
        return self.plan

    async def aready(self) -> Plan:
        return self.plan


class Empty:
    """The body of a response that has none, for both kinds of client."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        return
        yield b""

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


HEADERS = [(b"content-length", b"0"), (b"content-type", b"text/plain")]


REPLY = Reply(200, b"OK", b"HTTP/1.1", HEADERS, Empty())


class Nothing:
    """A channel that does nothing."""

    def __init__(self, *_where: object, **_bounds: object) -> None:
        pass

    def send(self, request: Any, timing: Any) -> Any:
        return REPLY

    def close(self) -> None:
        pass


class AsyncNothing(Nothing):
    async def send(self, request: Any, timing: Any) -> Any:
        return REPLY


class Stream(Empty, httpx.SyncByteStream, httpx.AsyncByteStream):
    pass


class Bare(httpx.BaseTransport):
    """A transport that does nothing."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=HEADERS, stream=Stream())


class AsyncBare(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=HEADERS, stream=Stream())


def plan() -> Plan:
    loaded = load([Source("bench.yaml", DOCUMENTS)])
    if loaded.problems:
        raise SystemExit("\n".join(map(str, loaded.problems)))
    instances = tuple(
        Instance(service="reviews", host=f"127.0.0.{number}", port=80, labels={"version": f"v{1 + number % 2}"})
        for number in range(1, 21)
    )
    return compile_plan(Snapshot(instances, loaded.resources, "bench"), "default", StateStore(), 0.0, random.random)


def sync_turn(transport: httpx.BaseTransport) -> float:
    """Microseconds of CPU a call: the transport and what httpx makes of its response, without the client above."""
    request = httpx.Request("GET", "http://reviews/42", headers={"end-user": "anna"})
    begun = time.process_time()
    for _ in range(CALLS):
        response = transport.handle_request(request)
        for _ in response.stream:
            pass
        response.stream.close()
    return (time.process_time() - begun) / CALLS * 1e6


def async_turn(transport: httpx.AsyncBaseTransport) -> float:
    """The same for an async transport."""
    request = httpx.Request("GET", "http://reviews/42", headers={"end-user": "anna"})

    async def turn() -> float:
        begun = time.process_time()
        for _ in range(CALLS):
            response = await transport.handle_async_request(request)
            async for _ in response.stream:
                pass
            await response.stream.aclose()
        return (time.process_time() - begun) / CALLS * 1e6

    return asyncio.run(turn())


def run(rounds: int) -> None:
    view = View(plan())
    made = transports(httpx)
    meshed, ameshed = made.sync(view, Options()), made.asynchronous(view, Options())
    with (
        mock.patch.object(SyncChannels, "_plain_class", return_value=Nothing),
        mock.patch.object(LoopChannels, "_plain_class", return_value=AsyncNothing),
    ):
        results = interleave(
            rounds,
            {
                "sync, nothing": lambda: sync_turn(Bare()),
                "sync, meshed": lambda: sync_turn(meshed),
                "async, nothing": lambda: async_turn(AsyncBare()),
                "async, meshed": lambda: async_turn(ameshed),
            },
        )
    for name, values in results.items():
        print(f"  {name:28} {spread(values)} µs")
    for kind in ("sync", "async"):
        beyond = [
            with_mesh - without
            for with_mesh, without in zip(results[f"{kind}, meshed"], results[f"{kind}, nothing"], strict=True)
        ]
        median = statistics.median(beyond)
        print(f"  policy pass, {kind:15} {spread(beyond)} µs   {'within' if median <= 15 else 'ABOVE'} 15 µs")
