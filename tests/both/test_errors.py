"""Calls that fail raise what `except` clauses wait for: meshlib's exception and the client's, in one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import httpx2
import pybreaker
import pytest

from meshlib.errors import (
    AttemptTimeout,
    BadResponse,
    CallError,
    CircuitOpen,
    ConnectFailed,
    ConnectionBroken,
    DeadlineExceeded,
    MeshError,
    NoEndpoints,
    Overflow,
    UnknownHost,
)
from tests.both.conftest import Caller, World
from tests.both.servers import Seen, answer, half, never, reset


class Trouble(NamedTuple):
    """A way to fail: how it is brought about, and what is raised."""

    arrange: Callable[[World], object]
    kind: type[CallError]
    client_kinds: tuple[str, ...]


def nobody(world: World) -> None:
    world.rule("route: [{destination: {host: nobody}}]")


def refused(world: World) -> None:
    world.register("reviews", world.closed_port())


def unknown(world: World) -> None:
    world.configure(outbound="registry-only")


def late(world: World) -> None:
    world.rule("timeout: 0.05s")
    world.serve("reviews", never)


def slow_attempt(world: World) -> None:
    world.rule("retries: {attempts: 1, perTryTimeout: 0.05s, retryOn: connect-failure}")
    world.serve("reviews", never)


def nonsense(world: World) -> None:
    world.serve("reviews", b"SSH-2.0-OpenSSH\r\n")


def short_body(world: World) -> None:
    def handler(seen: Seen) -> None:
        seen.peer.send(answer(b"12345")[:-2])
        seen.peer.close()

    world.serve("reviews", handler)


def broken_body(world: World) -> None:
    def handler(seen: Seen) -> None:
        seen.peer.send(answer(b"x" * 20_000_000)[:-2])
        seen.peer.reset()

    world.serve("reviews", handler)


def late_body(world: World) -> None:
    world.rule("timeout: 0.05s")
    world.serve("reviews", half)


TROUBLES = {
    "nobody serves the host": Trouble(nobody, NoEndpoints, ("ConnectError", "NetworkError")),
    "the connection is refused": Trouble(refused, ConnectFailed, ("ConnectError", "NetworkError")),
    "the mesh does not know the host": Trouble(unknown, UnknownHost, ("ConnectError",)),
    "the connection breaks": Trouble(
        lambda world: world.serve("reviews", reset), ConnectionBroken, ("ReadError", "NetworkError")
    ),
    "the deadline runs out": Trouble(late, DeadlineExceeded, ("ReadTimeout", "TimeoutException")),
    "the attempt is too slow": Trouble(slow_attempt, AttemptTimeout, ("ReadTimeout", "TimeoutException")),
    "the answer is not HTTP": Trouble(nonsense, BadResponse, ("RemoteProtocolError", "ProtocolError")),
    "the body breaks off": Trouble(broken_body, ConnectionBroken, ("ReadError", "NetworkError")),
    "the body ends too soon": Trouble(short_body, BadResponse, ("RemoteProtocolError", "ProtocolError")),
    "the body is late": Trouble(late_body, DeadlineExceeded, ("ReadTimeout", "TimeoutException")),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_a_failed_call_raises_an_error_of_the_mesh_that_is_the_clients_own_too(world: World, trouble: Trouble) -> None:
    trouble.arrange(world)

    async def scenario(client: Caller) -> None:
        error = await client.fails(trouble.kind)
        assert isinstance(error, MeshError)
        for name in (*trouble.client_kinds, "TransportError", "RequestError", "HTTPError"):
            assert isinstance(error, getattr(client.lib, name)), name
        assert error.request.url == "http://reviews/"

    world.run(scenario)


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_an_error_survives_pickling_with_its_evidence(sync_world: World, trouble: Trouble) -> None:
    trouble.arrange(sync_world)

    async def scenario(client: Caller) -> None:
        error = await client.fails(trouble.kind)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert (str(again), again.evidence) == (str(error), error.evidence)

    sync_world.run(scenario)


def test_an_error_says_what_was_tried_where_and_under_which_configuration(world: World) -> None:
    world.rule("name: all, retries: {attempts: 1}")
    port = world.closed_port()
    world.register("reviews", port)

    async def scenario(client: Caller) -> None:
        plan = world.mesh.plan
        assert plan is not None
        words = str(await client.fails(ConnectFailed))
        assert words.startswith(f"[UF] no connection to reviews could be opened: 127.0.0.1:{port}: ")
        assert "host reviews, route rule-reviews[all], cluster reviews.default.svc.cluster.local" in words
        assert f"configuration {plan.version}" in words
        assert f"1. first to 127.0.0.1:{port}: connect-failure after " in words
        assert f"2. retry to 127.0.0.1:{port}: connect-failure after " in words

    world.run(scenario)


CANARY = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: reviews, subset: v2}}]
"""


def test_a_subset_nobody_fits_is_told_from_a_service_that_is_not_there(world: World) -> None:
    world.apply(CANARY)
    world.register("reviews", world.closed_port(), version="v1")

    async def scenario(client: Caller) -> None:
        assert "of the 1 endpoints none wears the subset's labels" in str(await client.fails(NoEndpoints))

    world.run(scenario)


def test_a_service_that_is_not_there_is_told_to_be_registered(world: World) -> None:
    nobody(world)

    async def scenario(client: Caller) -> None:
        assert "no instance is registered" in str(await client.fails(NoEndpoints))

    world.run(scenario)


@pytest.mark.parametrize(("ours", "theirs"), [(httpx, httpx2), (httpx2, httpx)], ids=["httpx", "httpx2"])
def test_a_client_of_the_other_library_is_refused_before_anything_is_sent(
    sync_world: World, ours: Any, theirs: Any
) -> None:
    reviews = sync_world.serve("reviews", answer())
    with (
        theirs.Client(transport=sync_world.mesh.transport(ours)) as client,
        pytest.raises(TypeError, match=f"a transport for {ours.__name__} was given to a client of {theirs.__name__}"),
    ):
        client.get("http://reviews/")
    assert reviews.seen == []


def test_the_cause_of_a_failure_is_told(world: World) -> None:
    refused(world)

    async def scenario(client: Caller) -> None:
        error = await client.fails(ConnectFailed)
        assert "127.0.0.1" in str(error.__cause__)

    world.run(scenario)


def test_a_host_the_mesh_does_not_know_is_told_a_way_out(world: World) -> None:
    unknown(world)

    async def scenario(client: Caller) -> None:
        error = await client.fails(UnknownHost)
        assert "'reviews'" in str(error)
        assert "ServiceEntry" in str(error)

    world.run(scenario)


def test_an_open_circuit_breaker_is_an_error_of_pybreaker_too(world: World) -> None:
    world.outbound("circuitBreaker: {consecutiveFailures: 1, openFor: 30s}")
    reviews = world.serve("reviews", answer(status="500 Broken"))

    async def scenario(client: Caller) -> None:
        assert (await client.get("http://reviews/")).status_code == 500
        error = await client.fails(CircuitOpen)
        assert isinstance(error, client.lib.ConnectError)
        assert isinstance(error, pybreaker.CircuitBreakerError)
        assert "circuit breaker of reviews.default" in str(error)
        assert type(pickle.loads(pickle.dumps(error))) is type(error)

    world.run(scenario)
    assert len(reviews.seen) == 1


def test_a_limit_that_is_reached_is_the_clients_pool_timeout(world: World) -> None:
    world.traffic("connectionPool: {http: {http2MaxRequests: 1}}")
    world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        async with client.stream("GET", "http://reviews/"):
            error = await client.fails(Overflow)
            assert isinstance(error, client.lib.PoolTimeout)
        assert (await client.get("http://reviews/")).status_code == 200

    world.run(scenario)


def test_a_limit_holds_until_the_body_is_read(world: World) -> None:
    world.traffic("connectionPool: {http: {http2MaxRequests: 1}}")
    world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        reply = await client.send_streamed("GET", "http://reviews/")
        await client.fails(Overflow)
        await client.read(reply)
        assert (await client.get("http://reviews/")).status_code == 200

    world.run(scenario)


@pytest.mark.parametrize("what", ["httpx", httpx.Client, pickle])
def test_a_transport_is_asked_for_by_the_module_of_the_client(sync_world: World, what: Any) -> None:
    with pytest.raises(TypeError, match="expected the module httpx or httpx2"):
        sync_world.mesh.transport(what)
