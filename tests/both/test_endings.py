"""However a call ends, its ticket comes back and its connection is kept or closed."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from meshlib.errors import CircuitOpen
from tests.both.conftest import Caller, World
from tests.both.servers import Seen, Web, answer, half, in_turn, never
from tests.support import eventually_async

LARGE = answer(b"x" * 2_000_000)


async def gone(client: Caller, web: Web) -> None:
    """Wait for the end of every connection."""
    await client.eventually(lambda: web.ended == web.connections)


def test_a_response_that_is_forgotten_gives_its_ticket_back_and_warns(world: World) -> None:
    reviews = world.serve("reviews", LARGE)

    async def scenario(client: Caller) -> None:
        reply = await client.send_streamed("GET", "http://reviews/")
        assert world.in_flight() == 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del reply
            gc.collect()
            said = [str(one.message) for one in caught]
            caught.clear()  # it keeps what was forgotten, which now goes for good
        assert any("a response of reviews from" in words for words in said)
        assert world.in_flight() == 0
        await gone(client, reviews)

    world.run(scenario)


def test_a_response_that_is_closed_early_gives_its_ticket_back(world: World) -> None:
    if world.flavour.runs == "trio":
        pytest.skip("httpx leaves its generators to the garbage collector, which trio warns of")
    reviews = world.serve("reviews", LARGE)

    async def scenario(client: Caller) -> None:
        async with client.stream("GET", "http://reviews/") as reply:
            async for _ in client.pieces(reply):
                break
        assert world.in_flight() == 0
        await gone(client, reviews)

    world.run(scenario)


def test_a_response_that_was_never_begun_is_closed_without_complaint(world: World) -> None:
    reviews = world.serve("reviews", in_turn(LARGE, answer()))

    async def scenario(client: Caller) -> None:
        async with client.stream("GET", "http://reviews/"):
            pass
        assert world.in_flight() == 0
        assert (await client.get("http://reviews/")).text == "ok"

    world.run(scenario)
    assert reviews.connections == 2


def test_a_response_may_be_closed_twice_and_after_its_end(world: World) -> None:
    world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        reply = await client.send_streamed("GET", "http://reviews/")
        await client.read(reply)
        await client.close(reply)
        await client.close(reply)

    world.run(scenario)


def test_a_response_outlives_its_client(world: World) -> None:
    world.serve("reviews", LARGE)

    async def scenario(client: Caller) -> None:
        reply = await client.send_streamed("GET", "http://reviews/")
        await client.close_client()
        assert len(await client.read(reply)) == 2_000_000

    world.run(scenario)


@pytest.mark.parametrize("handler", [never, half], ids=["before the head", "within the body"])
def test_a_cancelled_call_leaves_nothing_in_flight(async_world: World, handler: Any) -> None:
    reviews = async_world.serve("reviews", handler)

    async def scenario(client: Caller) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, "http://reviews/")
            await client.eventually(lambda: reviews.seen)
            assert async_world.in_flight() == 1
            group.cancel_scope.cancel()
        assert async_world.in_flight() == 0
        await gone(client, reviews)

    async_world.run(scenario)


def test_a_cancelled_task_raises_its_cancellation(async_world: World) -> None:
    if async_world.flavour.runs == "trio":
        pytest.skip("tasks are asyncio's")
    reviews = async_world.serve("reviews", never)

    async def scenario(client: Caller) -> None:
        task = asyncio.create_task(client.get("http://reviews/"))
        await client.eventually(lambda: reviews.seen)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert async_world.in_flight() == 0

    async_world.run(scenario)


def test_a_call_cancelled_while_it_waits_to_retry_leaves_nothing_in_flight(async_world: World) -> None:
    reviews = async_world.serve("reviews", answer(status="503 Service Unavailable", Retry_After="10"))

    async def scenario(client: Caller) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, "http://reviews/")
            await client.eventually(lambda: reviews.seen and not async_world.in_flight())
            group.cancel_scope.cancel()

    async_world.run(scenario)
    assert len(reviews.seen) == 1


def test_a_cancelled_call_says_nothing_of_its_endpoint_and_gives_its_probe_back(async_world: World) -> None:
    async_world.outbound("circuitBreaker: {consecutiveFailures: 1, openFor: 0.05s}")
    reviews = async_world.serve("reviews", in_turn(answer(status="500 Broken"), never, answer()))

    async def until_probed(client: Caller) -> None:
        while True:
            try:
                await client.get("http://reviews/")
            except CircuitOpen:
                await anyio.lowlevel.checkpoint()

    async def scenario(client: Caller) -> None:
        await client.get("http://reviews/")
        async with anyio.create_task_group() as group:
            group.start_soon(until_probed, client)
            await client.eventually(lambda: len(reviews.seen) == 2)
            group.cancel_scope.cancel()
        # The probe said nothing, so that another is let through at once.
        assert (await client.get("http://reviews/")).status_code == 200

    async_world.run(scenario)


def test_an_interrupt_from_the_keyboard_gets_out_of_a_call(sync_world: World) -> None:
    def interrupt(seen: Seen) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        seen.peer.rest()

    reviews = sync_world.serve("reviews", interrupt)

    async def scenario(client: Caller) -> None:
        with pytest.raises(KeyboardInterrupt):
            await client.get("http://reviews/")
        assert sync_world.in_flight() == 0
        await gone(client, reviews)

    sync_world.run(scenario)


def test_what_a_streamed_body_raises_gets_out_and_is_nobodys_failure(world: World) -> None:
    def pieces() -> Any:
        yield b"one"
        raise LookupError("the file went away")

    def handler(seen: Seen) -> bytes:
        return answer()

    reviews = world.serve("reviews", handler)

    async def scenario(client: Caller) -> None:
        with pytest.raises(LookupError):
            await client.request(
                "PUT", "http://reviews/", content=client.body(pieces()), headers={"content-length": "9"}
            )
        assert world.in_flight() == 0
        await gone(client, reviews)
        assert (await client.get("http://reviews/")).status_code == 200

    world.run(scenario)


def test_one_client_serves_two_event_loops_one_after_another(async_world: World) -> None:
    reviews = async_world.serve("reviews", answer())
    world = async_world
    world.mesh.open()
    callers: list[Caller] = []

    async def first() -> None:
        callers.append(Caller(world.flavour, world.mesh, {}, {"timeout": 10}))
        assert (await callers[0].get("http://reviews/")).text == "ok"

    async def second() -> None:
        assert (await callers[0].get("http://reviews/")).text == "ok"
        await callers[0].close_client()

    world.run_plain(first)
    world.run_plain(second)
    assert (len(reviews.seen), reviews.connections) == (2, 2)
    assert world.in_flight() == 0


def test_one_client_serves_many_threads(sync_world: World) -> None:
    webs = [sync_world.serve("reviews", lambda seen: answer(seen.target.encode())) for _ in range(2)]

    async def scenario(client: Caller) -> None:
        def call(number: int) -> bool:
            return client.client.get(f"http://reviews/{number}").text == f"/{number}"  # type: ignore[no-any-return]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(call, range(160)))

    sync_world.run(scenario)
    assert sum(len(web.seen) for web in webs) == 160
    assert sum(web.connections for web in webs) <= 16


def test_many_calls_at_one_time_share_one_async_client(async_world: World) -> None:
    webs = [async_world.serve("reviews", lambda seen: answer(seen.target.encode())) for _ in range(2)]

    async def call(client: Caller, number: int) -> None:
        assert (await client.get(f"http://reviews/{number}")).text == f"/{number}"

    async def scenario(client: Caller) -> None:
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(call, client, number)

    async_world.run(scenario)
    assert sum(len(web.seen) for web in webs) == 20


def serving(world: World) -> set[int]:
    """The ports in the plan."""
    plan = world.mesh.plan
    assert plan is not None
    return {endpoint.port for cluster in plan.clusters.values() for endpoint in cluster.endpoints}


def test_the_connections_to_an_instance_that_has_gone_are_closed(world: World) -> None:
    world.traffic("loadBalancer: {simple: ROUND_ROBIN}")
    stays, goes = world.serve("reviews", answer()), world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        for _ in range(4):
            await client.get("http://reviews/")
        assert (stays.connections, goes.connections, goes.ended) == (1, 1, 0)
        world.withdraw("reviews", goes.port)
        await client.eventually(lambda: serving(world) == {stays.port})
        await client.get("http://reviews/")
        await gone(client, goes)

    world.run(scenario)
    assert (len(goes.seen), stays.connections) == (2, 1)


def test_a_response_of_an_instance_that_has_gone_is_read_to_its_end(world: World) -> None:
    goes = world.serve("reviews", LARGE)

    async def scenario(client: Caller) -> None:
        reply = await client.send_streamed("GET", "http://reviews/")
        stays = world.serve("reviews", answer())
        world.withdraw("reviews", goes.port)
        await client.eventually(lambda: serving(world) == {stays.port})
        await client.get("http://reviews/")
        assert len(await client.read(reply)) == 2_000_000
        await gone(client, goes)
        assert len(stays.seen) == 1

    world.run(scenario)


def test_connections_made_under_other_limits_are_closed(world: World) -> None:
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        await client.get("http://reviews/")
        before = world.mesh.plan
        world.traffic("connectionPool: {http: {idleTimeout: 7s}}")
        await client.eventually(lambda: world.mesh.plan is not before)
        await client.get("http://reviews/")
        await client.eventually(lambda: (reviews.connections, reviews.ended) == (2, 1))

    world.run(scenario)


def test_a_scope_of_the_callers_own_bounds_a_call(async_world: World) -> None:
    async_world.serve("reviews", never)

    async def scenario(client: Caller) -> None:
        with anyio.move_on_after(0.05) as scope:
            await client.get("http://reviews/")
        assert scope.cancelled_caught
        await eventually_async(lambda: async_world.in_flight() == 0)

    async_world.run(scenario)


def test_the_context_of_the_caller_is_the_context_of_its_streamed_body(world: World) -> None:
    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")
    seen: list[str] = []

    def pieces() -> Any:
        seen.append(mark.get())
        yield b"one"

    world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        token = mark.set("caller")
        await client.post("http://reviews/", content=client.body(pieces()))
        mark.reset(token)

    world.run(scenario)
    assert seen == ["caller"]
