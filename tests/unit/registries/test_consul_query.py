"""Blocking queries: paced in virtual time, and by the rules of Consul's documentation."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from meshlib.errors import RegistryError
from meshlib.registries.consul import query
from meshlib.registries.consul.address import consul_settings
from meshlib.registries.consul.client import Answer
from meshlib.registries.consul.query import BURST, LONGEST_RETRY, RATE, Pace, follow

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_few_answers_in_a_row_wait_for_nothing_and_many_are_paced() -> None:
    pace = Pace()
    assert [pace.answered(100.0) for _ in range(BURST)] == [0.0] * BURST
    now, asked = 100.0, 0
    while now < 110.0:
        now += pace.answered(now)
        asked += 1
    assert asked == pytest.approx(10 * RATE, abs=1)


def test_a_change_after_a_rest_waits_for_nothing_whatever_came_before() -> None:
    pace = Pace()
    for _ in range(50):
        pace.answered(100.0)
    assert pace.answered(200.0) == 0.0


def test_a_paced_change_is_asked_for_within_half_a_second() -> None:
    pace, now = Pace(), 0.0
    for _ in range(100):
        wait = pace.answered(now)
        assert wait <= 0.5
        now += wait


def test_errors_are_retried_quickly_then_more_slowly_then_at_a_bound() -> None:
    pace = Pace(lambda: 1.0)
    waits = [pace.failed() for _ in range(200)]
    assert waits[0] == pytest.approx(0.1)
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_RETRY
    pace.answered(0.0)
    assert pace.failed() == pytest.approx(0.1)


def test_chance_moves_a_retry_by_half_at_the_most() -> None:
    assert Pace(lambda: 0.0).failed() == pytest.approx(Pace(lambda: 1.0).failed() / 2)


class Scripted:
    """A client that gives the answers it is told to, and notes with which index it was asked."""

    settings = consul_settings("consul://", {})

    def __init__(self, *answers: tuple[int, bytes] | str) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[int | None, bool]] = []

    def error(self, problem: str, way_out: str = "") -> RegistryError:
        return RegistryError("consul", problem, way_out)

    async def get(self, path: str, params: Any, *, index: int | None, wait: float, missing_ok: bool) -> Answer:
        self.asked.append((index, ("consistent", "") in params))
        if not self._answers:
            await asyncio.Event().wait()
        answer = self._answers.pop(0)
        if isinstance(answer, str):
            raise self.error(answer)
        return Answer(answer[1], answer[0], {})


@pytest.fixture
def unpaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query.Pace, "answered", lambda self, now: 0.0)
    monkeypatch.setattr(query.Pace, "failed", lambda self: 0.0)


def decode(answer: Answer) -> str:
    if answer.data == b"<html>":
        raise ValueError("no JSON")
    return answer.data.decode()


async def said(client: Scripted, path: str = "/v1/x") -> list[str]:
    """What following says until the script is at its end; errors with a mark."""
    items: list[str] = []
    async with aclosing(follow(client, path, [], decode)) as answers:  # type: ignore[arg-type]
        following = asyncio.ensure_future(anext(answers))
        while True:
            done, _ = await asyncio.wait([following], timeout=0.05)
            if not done:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                return items
            item = following.result()
            items.append(f"! {item}" if isinstance(item, RegistryError) else item)
            following = asyncio.ensure_future(anext(answers))


@pytest.mark.usefixtures("unpaced")
async def test_an_answer_is_given_when_it_changed_and_only_then() -> None:
    client = Scripted((5, b"a"), (6, b"a"), (7, b"b"), (7, b"b"))
    assert await said(client) == ["a", "b"]
    assert [index for index, _ in client.asked] == [None, 5, 6, 7, 7]


@pytest.mark.usefixtures("unpaced")
async def test_an_index_that_goes_backwards_begins_anew_and_what_came_with_it_is_asked_again() -> None:
    client = Scripted((50, b"all"), (3, b""), (51, b"all"), (52, b"more"))
    assert await said(client) == ["all", "more"]
    assert client.asked == [(None, True), (50, False), (None, True), (51, False), (52, False)]


@pytest.mark.usefixtures("unpaced")
@pytest.mark.parametrize("index", [0, -1])
async def test_an_index_below_one_is_rubbish(index: int) -> None:
    client = Scripted((5, b"a"), (index, b""), (6, b"a"))
    items = await said(client)
    assert (items[0], items[2:]) == ("a", ["a"])
    assert "has no index" in items[1]


@pytest.mark.usefixtures("unpaced")
async def test_an_error_begins_anew_and_is_said_once_and_the_answer_again_after_it() -> None:
    client = Scripted((5, b"a"), "away", "away", "gone", (2, b"a"), (3, b"a"))
    assert await said(client) == ["a", "! consul: away", "! consul: gone", "a"]
    assert [index for index, _ in client.asked] == [None, 5, None, None, None, 2, 3]


@pytest.mark.usefixtures("unpaced")
async def test_what_cannot_be_read_is_an_error_with_its_beginning() -> None:
    client = Scripted((5, b"a"), (6, b"<html>"), (7, b"b"))
    items = await said(client)
    assert (items[0], items[2]) == ("a", "b")
    assert "no JSON" in items[1]
    assert "<html>" in items[1]


@pytest.mark.usefixtures("unpaced")
async def test_what_the_agent_itself_keeps_is_not_asked_of_the_leader() -> None:
    client = Scripted((5, b"a"))
    await said(client, "/v1/agent/connect/ca/roots")
    assert client.asked[0] == (None, False)
