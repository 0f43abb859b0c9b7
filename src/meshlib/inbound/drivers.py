"""The two drivers of admission: they perform its effects, in a thread or on an event loop, and send back the answers.

An effect is performed by what is registered for its type. What is here needs nothing but time; what fetches keys, asks
authorizers and counts on shared limits is the mesh's, and the gate adds it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from meshlib.inbound.denials import Denial, Permit
from meshlib.inbound.effects import Admission, EarlyBody, Effect, Pause, Queue, ReadBody
from meshlib.inbound.pulse import wait_in_queue
from meshlib.waiting import Flag

__all__ = ["AsyncPerformers", "Performers", "adrive", "async_performers", "drive", "performers"]

Performers = dict[type[Any], Callable[[Any], Any]]
"""By the type of an effect what performs it; what it returns is the effect's answer."""

AsyncPerformers = dict[type[Any], Callable[[Any], Awaitable[Any]]]

NO_BODY = EarlyBody(b"", False)
"""Of a WebSocket's handshake. What has a body brings what reads it."""


def drive(admission: Admission, performing: Performers) -> Denial | Permit:
    """Run an admission to its end in this thread."""
    try:
        effect = next(admission)
        while True:
            effect = admission.send(performing[type(effect)](effect))
    except StopIteration as end:
        answer: Denial | Permit = end.value
        return answer
    except BaseException:
        admission.close()
        raise


async def adrive(admission: Admission, effect: Effect, performing: AsyncPerformers) -> Denial | Permit:
    """Run an admission from its first effect to its end.

    A cancellation closes it, so that what it holds is given back, and goes on out.
    """
    try:
        while True:
            effect = admission.send(await performing[type(effect)](effect))
    except StopIteration as end:
        answer: Denial | Permit = end.value
        return answer
    except BaseException:
        admission.close()
        raise


def performers() -> Performers:
    """What performs effects in a thread."""
    return {ReadBody: lambda effect: NO_BODY, Queue: _queue, Pause: lambda effect: time.sleep(effect.seconds)}


def async_performers() -> AsyncPerformers:
    """What performs effects on any event loop."""

    async def body(effect: ReadBody) -> EarlyBody:
        return NO_BODY

    return {ReadBody: body, Queue: wait_in_queue, Pause: _apause}


def _queue(effect: Queue) -> None:
    flag = Flag()
    effect.waiter.wake = flag.set
    if not effect.waiter.over:  # it may have been before anybody could wake us
        flag.wait(effect.seconds)


async def _apause(effect: Pause) -> None:
    import anyio

    await anyio.sleep(effect.seconds)
