"""Two flows beside each other, for hedging; on asyncio and trio alike."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import anyio

from meshlib.call.drivers import AsyncIO, adrive
from meshlib.call.effects import Flow, Outcome, Race

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

__all__ = ["run_race"]

GIVE_UP = 1.0
"""Seconds that giving up a response may take where nobody can be waited for any more."""

Result = tuple[Outcome | None, BaseException | None]


async def run_race(race: Race, io: AsyncIO) -> Outcome:
    """The first good outcome, or the last one when none is good; the loser is cancelled and accounts for itself."""
    results, inbox = anyio.create_memory_object_stream[Result](math.inf)
    best: Outcome | None = None
    failed: BaseException | None = None
    ended = False
    with results, inbox:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_run, race.first, io, results)
                running = 1
                with anyio.move_on_after(race.delay):
                    best, failed = await inbox.receive()
                    running = 0
                if running and (second := race.second()) is not None:
                    group.start_soon(_run, second, io, results)
                    running = 2
                while running and failed is None and not (best is not None and best.good):
                    if best is not None:
                        await io.discard(best)
                        best = None
                    best, failed = await inbox.receive()
                    running -= 1
                group.cancel_scope.cancel()
            ended = True
        finally:
            # A loser may have ended just before it was cancelled; a caller cancelled meanwhile wants no winner either.
            await _give_up(_left(inbox) if ended else [*_left(inbox), best], io)
    if failed is not None:
        raise failed
    assert best is not None
    return best


def _left(inbox: MemoryObjectReceiveStream[Result]) -> list[Outcome | None]:
    return [inbox.receive_nowait()[0] for _ in range(inbox.statistics().current_buffer_used)]


async def _give_up(outcomes: Iterable[Outcome | None], io: AsyncIO) -> None:
    for outcome in outcomes:
        if outcome is not None:
            with anyio.move_on_after(GIVE_UP, shield=True):
                await io.discard(outcome)


async def _run(flow: Flow, io: AsyncIO, results: MemoryObjectSendStream[Result]) -> None:
    try:
        outcome = await adrive(flow, io)
    except Exception as error:  # noqa: BLE001 - the caller's own, raised again where the race was called
        results.send_nowait((None, error))
    else:
        results.send_nowait((outcome, None))
