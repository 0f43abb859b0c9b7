"""The identity of this process as it is now: one writer, the agent's thread; read from any."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable

from meshlib.errors import IdentityError
from meshlib.identity.lifetime import complaint
from meshlib.identity.material import IdentitySource, Material
from meshlib.waiting import Flag

__all__ = ["Identity"]

log = logging.getLogger("meshlib.identity")

RESTART_WAIT = 1.0
"""Seconds before a source that failed in a way nobody foresaw is begun again."""

AGE_INTERVAL = 1.0
"""Seconds between two looks at how old the identity is. Certificates go by the wall clock, which may be set: hence
looking, and no timer for the moment itself."""

Commit = Callable[[], None]
Prepare = Callable[[Material], Commit]


class Identity:
    """Holds the newest material and has everybody who depends on it follow.

    Args:
        make_source: opens where it comes from, on the agent's thread.
        url: what MESHLIB_IDENTITY says, for messages.

    Attributes:
        material: in force now; None before the first is there.
        error: what is wrong with the source, None when nothing is.
        error_since: monotonic seconds since when, None when nothing is.
        settled: set when the first material is in force, or the source has failed once; in a forked child, its own.
    """

    def __init__(self, make_source: Callable[[], IdentitySource], url: str) -> None:
        self.url = url
        self.material: Material | None = None
        self.error: IdentityError | None = None
        self.error_since: float | None = None
        self.settled = Flag()
        self._make_source = make_source
        self._lock = threading.Lock()
        self._followers: list[Prepare] = []

    def follow(self, prepare: Prepare) -> None:
        """Have `prepare` called with the material in force, if any, and with every later one.

        What takes time is done in `prepare`, off the hot path; what it returns puts the result in force, at once for
        all followers. A material that a follower can't use (it raises ValueError or OSError, as `ssl` does) is refused
        whole, and the one before stays.
        """
        with self._lock:
            self._followers.append(prepare)
            if self.material is not None:
                prepare(self.material)()

    def trouble(self, now: float) -> str:
        """What there is to say against the identity at `now` (Unix seconds), "" when nothing."""
        material, error = self.material, self.error
        age = complaint(material, now, away=error is not None) if material is not None else ""
        return "; ".join(filter(None, (age, str(error or ""))))

    def after_fork(self) -> None:
        """In a child: locks may be held by a thread that is gone. The material and who follows it stay.

        Nobody has renewed it since the fork, however long ago that was: the source has to be looked at anew.
        """
        self._lock = threading.Lock()
        self.settled = Flag()

    async def run(self) -> None:
        """Follow the source until cancelled: a chore of the agent's."""
        aging = asyncio.create_task(self._watch_age())
        try:
            while True:
                try:
                    await self._follow_source()
                except Exception as error:
                    log.exception("following the identity of %s failed and is begun again", self.url)
                    self._take(IdentityError(self.url, f"following it failed: {error!r}"))
                await asyncio.sleep(RESTART_WAIT)
        finally:
            aging.cancel()
            await asyncio.wait([aging])

    async def _follow_source(self) -> None:
        source = self._make_source()
        try:
            async with contextlib.aclosing(source.watch()) as watch:
                async for said in watch:
                    self._take(said)
        finally:
            await source.aclose()

    async def _watch_age(self) -> None:
        """Say once in the log that the identity is overdue, and once that it has expired."""
        said: tuple[Material | None, bool] | None = None
        while True:
            material, now = self.material, time.time()
            if material is not None and (age := complaint(material, now, away=self.error is not None)):
                expired = now >= material.not_after
                if said != (material, expired):
                    said = (material, expired)
                    log.log(logging.ERROR if expired else logging.WARNING, "%s: %s", self.url, age)
            await asyncio.sleep(AGE_INTERVAL)

    def _take(self, said: Material | IdentityError) -> None:
        if isinstance(said, Material):
            try:
                self._adopt(said)
            except (ValueError, OSError) as error:
                said = IdentityError(self.url, f"the material for {said.id} can't be used: {error}")
        if isinstance(said, IdentityError):
            # Once for each trouble: what is away fails in many words, one after the other.
            level = logging.WARNING if self.error is None else logging.DEBUG
            meanwhile = "there is none yet" if self.material is None else "the identity before stays in force"
            log.log(level, "%s; %s", said, meanwhile)
            self.error_since = self.error_since or time.monotonic()
            self.error = said
        elif self.error is not None:
            log.info("the identity is in order again")
            self.error = self.error_since = None
        self.settled.set()

    def _adopt(self, material: Material) -> None:
        with self._lock:
            commits = [prepare(material) for prepare in self._followers]
            for commit in commits:
                commit()
            first = self.material is None
            self.material = material
        left = material.not_after - time.time()
        log.log(logging.INFO if first else logging.DEBUG, "%s from %s, for %.0f s", material.id, self.url, left)
