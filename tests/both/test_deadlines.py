"""How long a call may take, and who says so."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

import pytest

import meshlib
from meshlib.context import INHERITED, Inherited
from meshlib.errors import AttemptTimeout, CallError, DeadlineExceeded
from meshlib.plan import routes
from tests.both.conftest import Caller, World
from tests.both.servers import Seen, answer, half, in_turn, never

TIMEOUT = "x-envoy-expected-rq-timeout-ms"
ATTEMPT = "x-envoy-attempt-count"


async def times_out(client: Caller, kind: type[CallError] = DeadlineExceeded, **options: Any) -> Any:
    error = await client.fails(kind, **options)
    assert isinstance(error, client.lib.TimeoutException)
    assert isinstance(error, client.lib.ReadTimeout)
    return error


def test_the_timeout_of_the_route_bounds_the_call_with_all_its_attempts(world: World) -> None:
    world.rule("timeout: 0.5s, retries: {attempts: 5, perTryTimeout: 0.3s, retryOn: reset, backoff: 1ms}")
    reviews = world.serve("reviews", never)

    async def scenario(client: Caller) -> None:
        error = await times_out(client)
        assert [attempt.endpoint for attempt in error.evidence.attempts] == [reviews.address] * 2
        assert 0.5 <= error.evidence.elapsed < 5

    world.run(scenario)


def test_a_caller_bounds_its_calls_by_a_block(world: World) -> None:
    world.serve("reviews", never)

    async def scenario(client: Caller) -> None:
        with meshlib.deadline(0.1):
            error = await times_out(client)
        assert len(error.evidence.attempts) == 1

    world.run(scenario)


def test_a_deadline_that_has_run_out_sends_nothing(world: World) -> None:
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        with meshlib.deadline(0.001):
            await client.eventually(lambda: meshlib.remaining() == 0)
            error = await times_out(client)
        assert error.evidence.attempts == ()

    world.run(scenario)
    assert reviews.seen == []


def test_a_call_inherits_deadline_attempt_and_trace_from_the_request_being_served(world: World) -> None:
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        trace = ((b"traceparent", b"00-1-2-01"),)
        token = INHERITED.set(Inherited(monotonic() + 3, 2, trace))
        try:
            await client.get("http://reviews/")
        finally:
            INHERITED.reset(token)
        await client.get("http://reviews/")

    world.run(scenario)
    first, second = (seen.headers for seen in reviews.seen)
    assert 0 < int(first[TIMEOUT]) <= 3000 < int(second[TIMEOUT]) <= 15000
    assert (first[ATTEMPT], first["traceparent"]) == ("2", "00-1-2-01")
    assert ATTEMPT not in second
    assert "traceparent" not in second


def test_what_is_left_of_the_deadline_and_the_attempts_number_are_sent_along(world: World) -> None:
    world.rule("retries: {attempts: 1, perTryTimeout: 0.1s, retryOn: reset}")
    reviews = world.serve("reviews", in_turn(never, answer()))

    async def scenario(client: Caller) -> None:
        assert (await client.get("http://reviews/")).status_code == 200

    world.run(scenario)
    first, second = (seen.headers for seen in reviews.seen)
    assert int(first[TIMEOUT]) - int(second[TIMEOUT]) >= 99
    assert (first.get(ATTEMPT), second[ATTEMPT]) == (None, "2")


def test_an_attempt_has_a_timeout_of_its_own(world: World) -> None:
    world.rule("retries: {attempts: 1, perTryTimeout: 0.05s, retryOn: reset}")
    reviews = world.serve("reviews", never)

    async def scenario(client: Caller) -> None:
        error = await times_out(client, AttemptTimeout)
        assert [attempt.outcome for attempt in error.evidence.attempts] == ["per-try-timeout"] * 2

    world.run(scenario)
    assert len(reviews.seen) == 2


def test_a_timeout_is_not_retried_when_the_request_may_do_harm_twice(world: World) -> None:
    world.rule("retries: {attempts: 5, perTryTimeout: 0.05s, retryOn: reset}")
    reviews = world.serve("reviews", never)

    async def scenario(client: Caller) -> None:
        await times_out(client, AttemptTimeout, method="POST")

    world.run(scenario)
    assert len(reviews.seen) == 1


def test_the_clients_own_timeouts_hold(world: World) -> None:
    world.rule("retries: {attempts: 0}")
    world.serve("reviews", never)

    async def scenario(client: Caller) -> None:
        with pytest.raises(client.lib.ReadTimeout):
            await client.get("http://reviews/", timeout=client.lib.Timeout(10, read=0.05))

    world.run(scenario)


def test_the_clients_own_timeouts_hold_for_the_body(world: World) -> None:
    world.serve("reviews", half)

    async def scenario(client: Caller) -> None:
        with pytest.raises(client.lib.ReadTimeout):
            await client.get("http://reviews/", timeout=client.lib.Timeout(10, read=0.05))

    world.run(scenario)


@pytest.mark.parametrize("who", ["the route", "the policy", "the caller"])
def test_a_deadline_that_somebody_asked_for_covers_the_body(world: World, who: str) -> None:
    world.serve("reviews", half)
    if who == "the route":
        world.rule("timeout: 0.1s")
    elif who == "the policy":
        world.outbound("deadline: 0.1s")

    async def scenario(client: Caller) -> None:
        with meshlib.deadline(0.1 if who == "the caller" else 60):
            error = await times_out(client)
        assert [attempt.outcome for attempt in error.evidence.attempts] == ["200"]

    world.run(scenario)


def test_the_default_deadline_does_not_cover_the_body(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "DEFAULT_DEADLINE", 0.5)
    passed = threading.Event()

    def slowly(seen: Seen) -> None:
        seen.peer.send(answer(b"onetwo")[:-3])
        passed.wait(10)
        seen.peer.send(b"two")

    world.serve("reviews", slowly)

    async def scenario(client: Caller) -> None:
        async with client.stream("GET", "http://reviews/") as reply:
            deadline = reply.extensions["meshlib"].deadline
            await client.eventually(lambda: monotonic() > deadline)
            passed.set()
            assert await client.read(reply) == b"onetwo"

    world.run(scenario)


def test_the_default_deadline_does_not_cut_off_a_streamed_upload(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "DEFAULT_DEADLINE", 0.0001)
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        await client.post("http://reviews/", content=client.body(iter([b"x" * 1000] * 100)))

    world.run(scenario)
    assert TIMEOUT not in reviews.seen[0].headers
