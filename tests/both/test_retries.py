"""What is sent again, and what never is."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.errors import ConnectFailed, ConnectionBroken
from tests.both.conftest import Caller, World
from tests.both.servers import answer, in_turn, reset

UNAVAILABLE = answer(status="503 Service Unavailable")
LIMIT = 65536


def outcomes(reply: Any) -> list[str]:
    return [attempt.outcome for attempt in reply.extensions["meshlib"].evidence(0.0).attempts]


def test_a_503_is_retried(world: World) -> None:
    world.serve("reviews", in_turn(UNAVAILABLE, answer(b"ok")))

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/")
        assert (reply.text, outcomes(reply)) == ("ok", ["503", "200"])

    world.run(scenario)


def test_the_last_503_is_the_answer_when_no_retry_is_left(world: World) -> None:
    reviews = world.serve("reviews", UNAVAILABLE)

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/")
        assert (reply.status_code, outcomes(reply)) == (503, ["503"] * 3)

    world.run(scenario)
    assert (len(reviews.seen), reviews.connections) == (3, 1)


def test_an_instance_that_refuses_connections_is_made_up_for_by_another(world: World) -> None:
    world.traffic("loadBalancer: {simple: ROUND_ROBIN}")
    reviews = world.serve("reviews", answer())
    world.register("reviews", world.closed_port())

    async def scenario(client: Caller) -> None:
        replies = [await client.post("http://reviews/", content=b"stars") for _ in range(4)]
        assert ["connect-failure", "200"] in map(outcomes, replies)

    world.run(scenario)
    assert [one.body for one in reviews.seen] == [b"stars"] * 4


def test_a_get_whose_connection_breaks_is_retried(world: World) -> None:
    world.serve("reviews", in_turn(reset, answer()))

    async def scenario(client: Caller) -> None:
        assert outcomes(await client.get("http://reviews/")) == ["reset", "200"]

    world.run(scenario)


def test_a_post_whose_connection_breaks_is_sent_exactly_once(world: World) -> None:
    reviews = world.serve("reviews", in_turn(reset, answer()))

    async def scenario(client: Caller) -> None:
        await client.fails(ConnectionBroken, method="POST", content=b"pay")

    world.run(scenario)
    assert [seen.body for seen in reviews.seen] == [b"pay"]


def test_a_post_that_was_answered_503_is_sent_exactly_once(world: World) -> None:
    reviews = world.serve("reviews", UNAVAILABLE)

    async def scenario(client: Caller) -> None:
        assert (await client.post("http://reviews/", content=b"pay")).status_code == 503

    world.run(scenario)
    assert len(reviews.seen) == 1


@pytest.mark.parametrize(
    "options",
    [{"headers": {"Idempotency-Key": "7"}}, {"extensions": {"meshlib": {"idempotent": True}}}],
    ids=["a key", "the caller's word"],
)
def test_a_post_is_retried_when_its_caller_says_that_this_is_harmless(world: World, options: dict[str, Any]) -> None:
    reviews = world.serve("reviews", in_turn(reset, UNAVAILABLE, answer()))

    async def scenario(client: Caller) -> None:
        reply = await client.post("http://reviews/", content=b"pay", **options)
        assert outcomes(reply) == ["reset", "503", "200"]

    world.run(scenario)
    assert [seen.body for seen in reviews.seen] == [b"pay"] * 3


def test_a_get_is_not_retried_when_its_caller_says_that_this_does_harm(world: World) -> None:
    reviews = world.serve("reviews", UNAVAILABLE)

    async def scenario(client: Caller) -> None:
        await client.get("http://reviews/", extensions={"meshlib": {"idempotent": False}})

    world.run(scenario)
    assert len(reviews.seen) == 1


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_streamed_body_that_was_begun_is_never_sent_again(world: World, method: str) -> None:
    reviews = world.serve("reviews", UNAVAILABLE)

    async def scenario(client: Caller) -> None:
        body = client.body(iter([b"one", b"two"]))
        reply = await client.request(method, "http://reviews/", content=body, headers={"Idempotency-Key": "7"})
        assert reply.status_code == 503

    world.run(scenario)
    assert [seen.body for seen in reviews.seen] == [b"onetwo"]


def test_a_streamed_body_that_was_not_begun_is_sent_after_a_connection_was_refused(world: World) -> None:
    world.traffic("loadBalancer: {simple: ROUND_ROBIN}")
    reviews = world.serve("reviews", answer())
    world.register("reviews", world.closed_port())

    async def scenario(client: Caller) -> None:
        bodies = [client.body(iter([b"one", b"two"])) for _ in range(3)]
        replies = [await client.post("http://reviews/", content=body) for body in bodies]
        assert ["connect-failure", "200"] in map(outcomes, replies)

    world.run(scenario)
    assert [one.body for one in reviews.seen] == [b"onetwo"] * 3


@pytest.mark.parametrize(("size", "times"), [(LIMIT, 3), (LIMIT + 1, 1)])
def test_a_body_of_up_to_64_kib_is_sent_again_and_a_larger_one_is_not(world: World, size: int, times: int) -> None:
    reviews = world.serve("reviews", UNAVAILABLE)

    async def scenario(client: Caller) -> None:
        await client.request("PUT", "http://reviews/", content=b"x" * size)

    world.run(scenario)
    assert [len(seen.body) for seen in reviews.seen] == [size] * times


def test_an_endpoint_that_asks_for_time_is_given_it(world: World) -> None:
    world.serve("reviews", in_turn(answer(status="503 Service Unavailable", Retry_After="1"), answer()))

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/")
        first, second = reply.extensions["meshlib"].evidence(0.0).attempts
        assert second.started - first.started >= 1

    world.run(scenario)


def test_an_endpoint_that_asks_for_more_time_than_there_is_has_the_last_word(world: World) -> None:
    reviews = world.serve("reviews", answer(status="503 Service Unavailable", Retry_After="60"))

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/")
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "60")

    world.run(scenario)
    assert len(reviews.seen) == 1


def test_a_connection_that_its_server_closes_as_we_write_is_replaced_without_a_retry(world: World) -> None:
    world.rule("retries: {attempts: 0}")
    reviews = world.serve("reviews", in_turn(answer(), reset, answer(b"healed")))

    async def scenario(client: Caller) -> None:
        await client.get("http://reviews/")
        reply = await client.get("http://reviews/")
        assert (reply.text, outcomes(reply)) == ("healed", ["200"])

    world.run(scenario)
    assert reviews.connections == 2


def test_a_post_is_not_written_twice_when_a_kept_connection_breaks(world: World) -> None:
    reviews = world.serve("reviews", in_turn(answer(), reset, answer()))

    async def scenario(client: Caller) -> None:
        await client.get("http://reviews/")
        await client.fails(ConnectionBroken, method="POST", content=b"pay")

    world.run(scenario)
    assert [seen.method for seen in reviews.seen] == ["GET", "POST"]


def test_a_kept_connection_that_its_server_closed_meanwhile_is_not_used(world: World) -> None:
    def once(seen: Any) -> None:
        seen.peer.send(answer())

    reviews = world.serve("reviews", once)

    async def scenario(client: Caller) -> None:
        for number in range(1, 4):
            assert outcomes(await client.post("http://reviews/", content=b"pay")) == ["200"]
            await client.eventually(lambda: reviews.ended == number)  # noqa: B023 - it is called at once

    world.run(scenario)
    assert len(reviews.seen) == 3


def test_retries_are_off_when_the_route_says_so(world: World) -> None:
    world.rule("retries: {attempts: 0}")
    world.register("reviews", world.closed_port())

    async def scenario(client: Caller) -> None:
        error = await client.fails(ConnectFailed)
        assert len(error.evidence.attempts) == 1

    world.run(scenario)
