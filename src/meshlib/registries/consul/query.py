"""Blocking queries, as Consul documents them: ask, wait until the index moves on, ask again.

The rules (developer.hashicorp.com/consul/api-docs/features/blocking): an index that goes backwards begins anew from
nothing, an index below 1 is rubbish and must not make a busy loop, and answers that come thick and fast are paced. Here
an error begins anew as well, for an agent that was restarted may count from less than we had, and would let us wait.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from meshlib.errors import RegistryError

if TYPE_CHECKING:
    from meshlib.registries.consul.client import Answer, ConsulClient

__all__ = ["WAIT", "Pace", "follow"]

T = TypeVar("T")

WAIT = 300.0
"""Seconds Consul may hold an answer back: its own default."""

BURST = 4
RATE = 2.0
"""A query may be asked this often at once, and this often a second in the long run: a change is seen within 0.5 s."""

FIRST_RETRY = 0.1
LONGEST_RETRY = 4.0
"""Seconds before a failed query is asked again: at first, and at most."""


class Pace:
    """When a query may be asked again: a bucket of tokens for answers, an exponential back-off with jitter for errors.

    Args:
        chance: gives numbers from 0 to 1.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._tokens = float(BURST)
        self._filled = 0.0
        self._failures = 0

    def answered(self, now: float) -> float:
        """Seconds to wait before the next query, after an answer that came at `now`, in monotonic seconds."""
        self._failures = 0
        self._tokens = min(float(BURST), self._tokens + max(0.0, now - self._filled) * RATE) - 1
        self._filled = now
        return max(0.0, -self._tokens / RATE)

    def failed(self) -> float:
        """Seconds to wait before the next query, after an error: half of the step for sure, the rest by chance."""
        step: float = min(FIRST_RETRY * 2 ** min(self._failures, 16), LONGEST_RETRY)
        self._failures += 1
        return step * (0.5 + 0.5 * self._chance())


async def follow(
    client: ConsulClient,
    path: str,
    params: Sequence[tuple[str, str]],
    decode: Callable[[Answer], T],
    *,
    missing_ok: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[T | RegistryError, None]:
    """What the answer to a GET is now and whenever it changes, decoded; errors as values.

    An error is yielded once per change of error; after it, the answer is yielded again even if it is the same. An
    answer that `decode` can't take is an error too: the last good one stays in force.

    Args:
        client: asks.
        path: from `/v1`, escaped.
        params: the query's parameters.
        decode: turns an answer into what is wanted; raises ValueError (msgspec's errors are) or RegistryError.
        missing_ok: whether 404 is an answer, with no data.
        clock: monotonic seconds.
    """
    # An agent keeps its own answers; others come from the servers, and a leader that was just elected may not have
    # applied its own log yet: what is read from nothing is read consistently, or a restart would seem to empty us.
    consistent = [] if path.startswith("/v1/agent/") or client.settings.stale else [("consistent", "")]
    pace = Pace()
    index: int | None = None
    seen: bytes | None = None
    trouble = ""
    while True:
        try:
            asked = [*params, *(consistent if index is None else ())]
            answer = await client.get(path, asked, index=index, wait=WAIT, missing_ok=missing_ok)
            if answer.index < 1:
                raise client.error(f"the answer to GET {path} has no index that can be waited for")
            if index is not None and answer.index < index:
                # What came with it may be of a state that is being rebuilt: before it is believed, ask from nothing.
                index = None
                await asyncio.sleep(pace.answered(clock()))
                continue
            if trouble or answer.data != seen:
                value = _decoded(client, path, answer, decode)
                seen, trouble = answer.data, ""
                yield value
        except RegistryError as error:
            index = None
            if str(error) != trouble:
                trouble = str(error)
                yield error
            await asyncio.sleep(pace.failed())
        else:
            index = answer.index
            await asyncio.sleep(pace.answered(clock()))


def _decoded(client: ConsulClient, path: str, answer: Answer, decode: Callable[[Answer], T]) -> T:
    try:
        return decode(answer)
    except (ValueError, RecursionError) as error:
        start = answer.data[:60]
        raise client.error(f"the answer to GET {path} can't be read: {error} (it begins with {start!r})") from error
