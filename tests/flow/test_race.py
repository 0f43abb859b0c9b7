"""The race as the async driver runs it."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from meshlib.call.effects import Outcome, Race, Send
from meshlib.plan.cluster import Cluster, HedgePolicy
from meshlib.state.budget import BudgetPolicy
from meshlib.testing.clock import ManualClock
from meshlib.wire.race import run_race
from tests.flow.hands import Hand, cluster, failed, in_flight, ok, release, route

ALWAYS = BudgetPolicy(percent=100.0, min_per_second=0.0)


class Hands:
    """The first attempt waits until it is told to end; the hedge is answered at once."""

    def __init__(self, hedge: Callable[[], Outcome], first: Callable[[], Outcome] = ok) -> None:
        self.hedge = hedge
        self.first = first
        self.first_may_end = anyio.Event()
        self.loser_is_ending = anyio.Event()
        self.loser_may_end = anyio.Event()
        self.loser_may_end.set()
        self.discarded = 0

    async def send(self, send: Send) -> Outcome:
        if send.attempt == 2:
            return self.hedge()
        try:
            await self.first_may_end.wait()
        finally:
            self.loser_is_ending.set()
            with anyio.CancelScope(shield=True):
                await self.loser_may_end.wait()
        return self.first()

    async def discard(self, outcome: Outcome) -> None:
        self.discarded += 1
        await anyio.lowlevel.checkpoint()
        release(outcome)

    async def sleep(self, seconds: float) -> None:
        await anyio.lowlevel.checkpoint()

    async def race(self, race: Race) -> Outcome:
        return await run_race(race, self)


@pytest.fixture
def to() -> Cluster:
    return cluster(hedge=HedgePolicy(delay=0.001, budget=ALWAYS))


def begun(to: Cluster) -> Hand:
    return Hand(route(to, retry=None), ManualClock(100.0))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_hedge_wins_and_the_first_is_abandoned(to: Cluster, backend: str) -> None:
    hand = begun(to)

    async def main() -> Outcome:
        return await Hands(ok).race(hand.race)

    outcome = anyio.run(main, backend=backend)
    assert outcome.good
    assert in_flight(to) == 1
    release(outcome)
    assert in_flight(to) == 0
    assert sorted(hand.said()) == [("first", "abandoned"), ("hedge", "200")]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_hedge_that_fails_leaves_the_first_to_win(to: Cluster, backend: str) -> None:
    hand = begun(to)

    async def main() -> Outcome:
        hands = Hands(failed)
        hands.first_may_end.set()
        return await hands.race(hand.race)

    outcome = anyio.run(main, backend=backend)
    assert outcome.good
    release(outcome)
    assert in_flight(to) == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_call_cancelled_while_its_loser_ends_gives_the_winner_up(to: Cluster, backend: str) -> None:
    hand = begun(to)

    async def main() -> None:
        hands = Hands(ok)
        hands.loser_may_end = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(hands.race, hand.race)
            await hands.loser_is_ending.wait()
            group.cancel_scope.cancel()
            hands.loser_may_end.set()

    anyio.run(main, backend=backend)
    assert in_flight(to) == 0
