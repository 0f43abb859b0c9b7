"""Keeping the keys of issuers of tokens: fetched beside the requests, refreshed, and fetched anew for an unknown one.

What is there serves on while an issuer is away. How often an issuer is asked doesn't depend on what callers send: who
writes tokens with made-up key names has it asked once in `LEAST_INTERVAL`, all of them together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from meshlib.identity.keyfetch import KeysUnreachable, Opening, fetch_key_set, open_client
from meshlib.policy.keyring import KeysUnreadable, read_keys
from meshlib.state.tokens import IssuerKeys, KeySource, TokenState
from meshlib.waiting import Flag

if TYPE_CHECKING:
    import httpx

__all__ = ["FIRST_RETRY", "LEAST_INTERVAL", "LONGEST_RETRY", "REFRESH", "IssuerKeysKeeper"]

log = logging.getLogger("meshlib.identity")

REFRESH = 300.0
"""Seconds that keys are used before they are looked at again: Istio's `cacheDuration`."""

SPREAD = 0.1
"""Share of that by which it is shortened at random, so that a fleet doesn't ask all at once."""

LEAST_INTERVAL = 10.0
"""Seconds between two fetches that tokens with unknown keys bring about."""

FIRST_RETRY = 1.0
LONGEST_RETRY = 60.0
"""Seconds before a failed fetch is tried again: doubled each time, half of it by chance."""

Fetch = Callable[["httpx.AsyncClient", KeySource], Awaitable[bytes]]


class _Round:
    """The fetches of one source.

    Attributes:
        under_way: set when the fetch that is under way, or was asked for, is over; None: there is none.
        asked_at: monotonic seconds when one after the first was asked for, the last time.
        failed_at: monotonic seconds when the last one failed; None: it didn't.
        first: whether there was none yet.
        asked: wakes who fetches.
    """

    __slots__ = ("asked", "asked_at", "failed_at", "first", "under_way")

    def __init__(self) -> None:
        self.under_way: Flag | None = None
        self.asked_at = -math.inf
        self.failed_at: float | None = None
        self.first = True
        self.asked = asyncio.Event()  # of the loop it is first waited for on

    def rests(self, now: float) -> bool:
        """Whether the issuer was asked a moment ago because somebody wanted it, or was in trouble then."""
        failed = self.failed_at is not None and now - self.failed_at < LEAST_INTERVAL
        return failed or now - self.asked_at < LEAST_INTERVAL


class IssuerKeysKeeper:
    """Fetches what the newest plan wants. `fetch_soon` and `look` may be called from any thread.

    Args:
        state: whose keys; one that a plan wants is in its `wanted`.
        eager: whether keys are fetched before anybody brings a token.
        fetch, open_client, clock, chance: for tests.
    """

    def __init__(
        self,
        state: TokenState,
        *,
        eager: bool,
        fetch: Fetch = fetch_key_set,
        open_client: Opening = open_client,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._state = state
        self._eager = eager
        self._fetch = fetch
        self._open_client = open_client
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._rounds: dict[KeySource, _Round] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._changed = asyncio.Event()
        self._told = ""

    def fetch_soon(self, source: KeySource) -> Flag:
        """Have the keys of a source fetched, unless somebody just had; what is returned is set when that is over."""
        now = self._clock()
        with self._lock:
            round_ = self._rounds.setdefault(source, _Round())
            if round_.under_way is not None:
                return round_.under_way
            flag = Flag()
            if round_.rests(now):
                flag.set()
                return flag
            round_.under_way = flag
            if not round_.first:
                round_.asked_at = now
        self._wake(round_.asked)
        return flag

    def look(self) -> None:
        """Another plan is in force, and may want others."""
        fault = self._state.fault
        if fault and fault != self._told:
            log.error("%s", fault)
        self._told = fault
        self._wake(self._changed)

    @property
    def trouble(self) -> str:
        """Whose tokens can't be verified, or by old keys only, and why; "" when there is nothing to say."""
        return self._state.trouble

    def _wake(self, event: asyncio.Event) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended: nobody fetches any more
                loop.call_soon_threadsafe(event.set)

    async def run(self) -> None:
        """Keep the wanted keys, for ever: a chore of the agent's."""
        tasks: dict[IssuerKeys, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                self._changed.clear()
                wanted = set(self._state.wanted)
                for gone in tasks.keys() - wanted:
                    tasks.pop(gone).cancel()
                for new in wanted - tasks.keys():
                    tasks[new] = asyncio.create_task(self._keep(new))
                self._forget({keys.source for keys in wanted})
                await self._changed.wait()
        finally:
            self._loop = None
            for task in tasks.values():
                task.cancel()
            try:
                await asyncio.gather(*tasks.values(), return_exceptions=True)
            finally:  # an impatient loop cancels twice
                self._forget(set())
                client, self._client = self._client, None
                if client is not None:
                    await client.aclose()

    def _forget(self, wanted: set[KeySource | None]) -> None:
        """Let go of the rounds of sources that aren't wanted, and of whoever waits for them."""
        with self._lock:
            gone = [self._rounds.pop(source) for source in self._rounds.keys() - wanted]
        for round_ in gone:
            if round_.under_way is not None:
                round_.under_way.set()

    async def _keep(self, keys: IssuerKeys) -> None:
        """Have the keys of one source at hand, for ever."""
        source = keys.source
        assert source is not None
        with self._lock:
            round_ = self._rounds.setdefault(source, _Round())
        round_.asked = asyncio.Event()
        waits = self._waits(keys)
        if not self._eager and keys.ring is None and round_.under_way is None:
            await round_.asked.wait()
        while True:
            round_.asked.clear()
            with self._lock:
                flag = round_.under_way = round_.under_way or Flag()
            try:
                await self._refresh(keys, source)
            finally:
                with self._lock:
                    round_.under_way, round_.first = None, False
                    round_.failed_at = self._clock() if keys.error else None
                flag.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(next(waits)):
                    await round_.asked.wait()

    async def _refresh(self, keys: IssuerKeys, source: KeySource) -> None:
        try:
            if self._client is None:
                self._client = self._open_client()
            text = await self._fetch(self._client, source)
            ring = read_keys(text)
        except (KeysUnreachable, KeysUnreadable) as error:
            self._failed(keys, source, str(error))
            return
        except Exception as error:
            log.exception("fetching the keys of %s failed in a way nobody foresaw", source.issuer)
            self._failed(keys, source, repr(error))
            return
        if keys.error:
            log.info("the keys of %s are there again", source.issuer)
        # Keys that are the same stay the same object, and what was verified with them stays verified.
        if keys.ring is None or keys.ring.digest != ring.digest:
            log.info("%d keys of %s, %d others in the set passed over", len(ring), source.issuer, ring.passed_over)
            keys.ring = ring
        keys.error = ""

    def _failed(self, keys: IssuerKeys, source: KeySource, why: str) -> None:
        if not keys.error:
            then = "those at hand serve on" if keys.ring is not None else "its tokens are refused"
            log.warning("the keys of %s can't be fetched: %s; %s", source.issuer, why, then)
        keys.error = why

    def _waits(self, keys: IssuerKeys) -> Iterator[float]:
        """Seconds to wait after each fetch."""
        retry = FIRST_RETRY
        while True:
            if keys.error:
                yield retry * (1 - 0.5 * self._chance())
                retry = min(2 * retry, LONGEST_RETRY)
            else:
                retry = FIRST_RETRY
                yield REFRESH * (1 - SPREAD * self._chance())
