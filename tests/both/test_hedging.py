"""A second attempt beside a slow first: the better wins, and the loser leaves no trace."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import anyio
import pytest

from tests.both.conftest import Caller, World
from tests.both.servers import Handler, Seen, Web, answer, never

HEDGING = "hedging: {delay: 0.05s, maxExtraPercent: 100}"


class Rivals:
    """Two instances; the first request to either of them is treated otherwise than those after it."""

    def __init__(self, world: World, first: Handler, others: bytes = answer(b"quick")) -> None:
        self._turns: Iterator[int] = itertools.count(1)
        self._lock = threading.Lock()
        self._first = first
        self._others = others
        self.webs: list[Web] = [world.serve("reviews", self._handle) for _ in range(2)]

    def _handle(self, seen: Seen) -> bytes | None:
        with self._lock:
            turn = next(self._turns)
        return self._first(seen) if turn == 1 else self._others

    @property
    def seen(self) -> int:
        return sum(len(web.seen) for web in self.webs)

    @property
    def ended(self) -> int:
        return sum(web.ended for web in self.webs)


def attempts(reply: object) -> list[tuple[str, str]]:
    evidence = reply.extensions["meshlib"].evidence(0.0)  # type: ignore[attr-defined]  # of either library
    return sorted((attempt.kind, attempt.outcome) for attempt in evidence.attempts)


def test_a_slow_attempt_is_beaten_and_its_connection_closed(async_world: World) -> None:
    async_world.outbound(HEDGING)
    rivals = Rivals(async_world, never)

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/")
        assert (reply.text, attempts(reply)) == ("quick", [("first", "abandoned"), ("hedge", "200")])
        assert async_world.in_flight() == 0
        await client.eventually(lambda: rivals.ended == 1)

    async_world.run(scenario)
    assert sorted(len(web.seen) for web in rivals.webs) == [1, 1]


def test_the_winners_body_is_read_after_the_race(async_world: World) -> None:
    async_world.outbound(HEDGING)
    Rivals(async_world, never, answer(b"x" * 2_000_000))

    async def scenario(client: Caller) -> None:
        reply = await client.send_streamed("GET", "http://reviews/")
        assert async_world.in_flight() == 1
        assert len(await client.read(reply)) == 2_000_000

    async_world.run(scenario)


def test_a_slow_failure_does_not_win_against_a_good_answer(async_world: World) -> None:
    async_world.outbound(HEDGING)
    hedged = threading.Event()

    def fail_late(seen: Seen) -> bytes:
        hedged.wait(10)
        return answer(status="500 Broken")

    rivals = Rivals(async_world, fail_late)

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/")
        assert reply.status_code == 200
        hedged.set()
        assert rivals.seen == 2

    async_world.run(scenario)


def test_a_quick_answer_needs_no_hedge(async_world: World) -> None:
    async_world.outbound("hedging: {delay: 5s, maxExtraPercent: 100}")
    rivals = Rivals(async_world, lambda seen: answer(b"first"))

    async def scenario(client: Caller) -> None:
        reply = await client.get("http://reviews/")
        assert (reply.text, attempts(reply)) == ("first", [("first", "200")])

    async_world.run(scenario)
    assert rivals.seen == 1


@pytest.mark.parametrize("body", ["harmful", "streamed"])
def test_what_can_not_be_sent_twice_is_not_hedged(async_world: World, body: str) -> None:
    async_world.outbound(HEDGING)
    async_world.rule("timeout: 0.2s")
    rivals = Rivals(async_world, never)

    async def scenario(client: Caller) -> None:
        method, content = ("POST", b"pay") if body == "harmful" else ("PUT", client.body(iter([b"pay"])))
        with pytest.raises(client.lib.ReadTimeout):
            await client.request(method, "http://reviews/", content=content)

    async_world.run(scenario)
    assert rivals.seen == 1


def test_a_race_that_is_cancelled_leaves_nothing_in_flight(async_world: World) -> None:
    async_world.outbound(HEDGING)
    webs = [async_world.serve("reviews", never) for _ in range(2)]

    async def scenario(client: Caller) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, "http://reviews/")
            await client.eventually(lambda: all(web.seen for web in webs))
            assert async_world.in_flight() == 2
            group.cancel_scope.cancel()
        assert async_world.in_flight() == 0
        await client.eventually(lambda: all(web.ended for web in webs))

    async_world.run(scenario)


def test_a_sync_call_is_not_hedged(sync_world: World) -> None:
    sync_world.outbound(HEDGING)
    sync_world.rule("timeout: 0.2s")
    rivals = Rivals(sync_world, never)

    async def scenario(client: Caller) -> None:
        with pytest.raises(client.lib.ReadTimeout):
            await client.get("http://reviews/")

    sync_world.run(scenario)
    assert rivals.seen == 1
