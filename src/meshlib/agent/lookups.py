"""Hosts a registry is asked for when the first call to them comes.

A registry such as Consul's tells only of the services it was asked for. The first call to a service asks, and waits for
the answer; every later one finds the service in the plan, or in the plan's `asked` that there is none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator

from meshlib.plan.plan import Plan
from meshlib.waiting import Changes

__all__ = ["LOOKUP_WAIT", "Lookups"]

log = logging.getLogger("meshlib.agent")

LOOKUP_WAIT = 2.0
"""Seconds the first call to a service waits for the registry's word on it."""

ROUTES_WAIT = 0.5
"""Seconds more for the services its routes lead to; those that take longer come later."""

LOOK_EVERY = 0.1
"""Seconds between two looks at whether the registry is in trouble, which isn't announced here."""

TROUBLE_WAIT = 0.5
"""Seconds that are waited even while something is wrong with the registry: it need not be wrong with this service."""

VAIN_FOR = 5.0
"""Seconds a lookup that brought nothing in time isn't waited for again, so that calls don't queue up behind it."""

MOST_VAIN = 1000

MOST_NOBODY = 100
"""Names that nobody serves and that are asked for within `NOBODY_WITHIN` seconds. Each is watched for a while, by a
connection to the registry; where strangers choose the hosts of calls there would be no end of them, and Consul's agent
takes 200 connections from one address."""

NOBODY_WITHIN = 60.0

Ask = Callable[[Iterable[str]], object]
_Wait = tuple[Callable[[], bool], float]


class Lookups:
    """Waits for a plan that speaks of a host. Thread-safe.

    Args:
        plan: gives the plan in force.
    """

    def __init__(self, plan: Callable[[], Plan | None]) -> None:
        self._plan = plan
        self._changes = Changes()
        self._vain: dict[str, float] = {}
        self._nobodies: dict[str, float] = {}
        self._told = -NOBODY_WITHIN
        self._lock = threading.Lock()

    def wait(self, name: str, ask: Ask, given_up: Callable[[], bool]) -> None:
        """Ask for the service `name`, and wait for a plan that speaks of it and of what its routes lead to.

        Args:
            name: full, as `Plan.unasked` gives it.
            ask: has the registry watch more services.
            given_up: whether waiting may be in vain: something is wrong with the registry.
        """
        for holds, seconds in self._waits(name, ask, given_up):
            self._changes.wait_until(holds, seconds)

    async def sleep(self, name: str, ask: Ask, given_up: Callable[[], bool]) -> None:
        """`wait` without blocking the event loop."""
        for holds, seconds in self._waits(name, ask, given_up):
            await self._changes.sleep_until(holds, seconds)

    def published(self) -> None:
        """Another plan is in force."""
        self._changes.tell()

    def _waits(self, name: str, ask: Ask, given_up: Callable[[], bool]) -> Iterator[_Wait]:
        """What to wait for, one after the other, and how long at most."""
        now = time.monotonic()
        if self._vain.get(name, 0.0) > now or not self._let_in(name, now):
            return
        ask([name])
        spoken = yield from self._until(lambda plan: plan.asked is None or name in plan.asked, LOOKUP_WAIT, given_up)
        if spoken:
            plan = self._plan()
            if plan is None or name in plan.hosts:
                with self._lock:
                    self._nobodies.pop(name, None)
            yield from self._until(lambda plan: not plan.wanted, ROUTES_WAIT, given_up)
            return
        if len(self._vain) >= MOST_VAIN:
            self._vain.clear()
        self._vain[name] = time.monotonic() + VAIN_FOR

    def _let_in(self, name: str, now: float) -> bool:
        """Whether `name` may be asked for; not when so many others were nobody's of late. Counts it as nobody's."""
        with self._lock:
            if name not in self._nobodies:
                recent = {nobody: at for nobody, at in self._nobodies.items() if now - at < NOBODY_WITHIN}
                self._nobodies = recent
                if len(recent) >= MOST_NOBODY:
                    return self._refused(now)
            self._nobodies[name] = now  # until it is known to be somebody
            return True

    def _refused(self, now: float) -> bool:
        if now - self._told >= NOBODY_WITHIN:
            self._told = now
            log.warning(
                "calls went to %d hosts within %.0f s that may be services and that nobody serves; no others are looked"
                " for in the registry for the time being",
                MOST_NOBODY,
                NOBODY_WITHIN,
            )
        return False

    def _until(
        self, holds: Callable[[Plan], bool], seconds: float, given_up: Callable[[], bool]
    ) -> Generator[_Wait, None, bool]:
        def done() -> bool:
            plan = self._plan()
            return plan is None or holds(plan)

        began = time.monotonic()
        while not done():
            waited = time.monotonic() - began
            if waited >= seconds or (waited >= TROUBLE_WAIT and given_up()):
                return False
            yield done, min(seconds - waited, max(TROUBLE_WAIT - waited, LOOK_EVERY))
        return True
