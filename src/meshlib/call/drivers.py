"""The two drivers: they perform the effects of a flow and send back what came of them.

They know nothing of policy. A third driver, in `meshlib.testing.simulation`, runs the same flow in virtual time.
"""

from __future__ import annotations

from typing import Protocol

from meshlib.call.effects import Backoff, Flow, Outcome, Race, Send

__all__ = ["AsyncIO", "SyncIO", "adrive", "drive"]


class SyncIO(Protocol):
    """How the sync driver acts."""

    def send(self, send: Send) -> Outcome:
        """Send the request; failures of the wire come back as outcomes, the caller's own exceptions are raised."""

    def discard(self, outcome: Outcome) -> None:
        """Give up an outcome's response and release its ticket."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class AsyncIO(Protocol):
    """How the async driver acts."""

    async def send(self, send: Send) -> Outcome:
        """Send the request; failures of the wire come back as outcomes, the caller's own exceptions are raised."""

    async def discard(self, outcome: Outcome) -> None:
        """Give up an outcome's response and release its ticket."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def race(self, race: Race) -> Outcome:
        """Run two flows beside each other; see `Race`."""


def drive(flow: Flow, io: SyncIO) -> Outcome:
    """Run a flow to its end in this thread. Hedges aren't sent: that takes concurrency."""
    try:
        effect = next(flow)
        while True:
            outcome: Outcome | None = None
            if type(effect) is Send:
                outcome = io.send(effect)
            elif type(effect) is Race:
                outcome = drive(effect.first, io)
            elif type(effect) is Backoff:
                if effect.discard is not None:
                    io.discard(effect.discard)
                io.sleep(effect.seconds)
            effect = flow.send(outcome)
    except StopIteration as end:
        result: Outcome = end.value
        return result
    except BaseException:
        flow.close()
        raise


async def adrive(flow: Flow, io: AsyncIO) -> Outcome:
    """Run a flow to its end. A cancellation closes the flow, whose `finally` does the accounting, and goes on out."""
    try:
        effect = next(flow)
        while True:
            outcome: Outcome | None = None
            if type(effect) is Send:
                outcome = await io.send(effect)
            elif type(effect) is Race:
                outcome = await io.race(effect)
            elif type(effect) is Backoff:
                if effect.discard is not None:
                    await io.discard(effect.discard)
                await io.sleep(effect.seconds)
            effect = flow.send(outcome)
    except StopIteration as end:
        result: Outcome = end.value
        return result
    except BaseException:
        flow.close()
        raise
