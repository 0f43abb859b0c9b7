"""A race gives up what it brought when nobody wants it any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from meshlib.call.effects import Flow, Outcome, Race, Send
from meshlib.wire.race import run_race


class Wire:
    """Answers a send once `answer` was called; notes what is given up."""

    def __init__(self) -> None:
        self.discarded: list[Outcome] = []
        self.outcome = Outcome(200)
        self.outcome.good = True
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.before_answering: list[Any] = []

    def answer(self) -> None:
        self._answer.set_result(None)

    async def send(self, send: Send) -> Outcome:
        await self._answer
        for action in self.before_answering:
            asyncio.get_running_loop().call_soon(action)
        return self.outcome

    async def discard(self, outcome: Outcome) -> None:
        self.discarded.append(outcome)

    async def sleep(self, seconds: float) -> None:
        raise AssertionError

    async def race(self, race: Race) -> Outcome:
        raise AssertionError


def attempt() -> Flow:
    outcome: Outcome = yield Send(None, 1, None, 1.0)  # type: ignore[arg-type]  # nobody asks for the endpoint
    return outcome


def test_an_outcome_that_arrives_as_the_caller_is_cancelled_is_given_up() -> None:
    async def main() -> None:
        wire = Wire()
        task = asyncio.create_task(run_race(Race(attempt(), 10.0, lambda: None), wire))
        wire.before_answering.append(task.cancel)
        await asyncio.sleep(0)
        wire.answer()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert wire.discarded == [wire.outcome]

    asyncio.run(main())


def test_a_winner_is_handed_over_and_not_given_up() -> None:
    async def main() -> None:
        wire = Wire()
        wire.answer()
        assert await run_race(Race(attempt(), 10.0, lambda: None), wire) is wire.outcome
        assert wire.discarded == []

    asyncio.run(main())
