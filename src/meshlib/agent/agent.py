"""The agent: watches the registry, publishes plans, keeps us registered, keeps the last good configuration on disk."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from meshlib.agent.configuration import Configuration
from meshlib.agent.lastgood import LastGood
from meshlib.agent.leases import Registration
from meshlib.agent.thread import LoopThread
from meshlib.errors import RegistryError
from meshlib.plan.snapshot import Snapshot
from meshlib.registries.base import Instance, Registry, Update
from meshlib.resources import Source
from meshlib.waiting import Flag

__all__ = ["Agent"]

log = logging.getLogger("meshlib.agent")

FIRST_UPDATE_WAIT = 2.0
"""Seconds a registry that says nothing at all is waited for before the last good configuration is used."""

RESTART_WAIT = 1.0
"""Seconds before a watch that failed in a way nobody foresaw is begun again."""


class Agent:
    """Everything that happens beside the calls, on one thread. Its methods may be called from any thread.

    Args:
        registry: makes the registry, on the agent's thread.
        publish: compiles a snapshot and puts the plan in force.
        last_good: where the last good configuration is kept.
        strict: see `Configuration`.
        serves: whether this process is going to register, and so will make a registry that isn't there yet.
        chores: what else runs beside the calls, until the agent is closed.
    """

    def __init__(
        self,
        registry: Callable[[], Registry],
        publish: Callable[[Snapshot], None],
        last_good: LastGood,
        *,
        strict: bool = False,
        serves: bool = False,
        chores: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    ) -> None:
        self.configuration = Configuration(publish, strict=strict, recall=self._recall)
        self.published = Flag()
        self.began = time.monotonic()
        self.from_disk = False
        self._make_registry = registry
        self._registry: Registry | None = None
        self._opened = asyncio.Event()
        self._last_good = last_good
        self._serves = serves
        self._registrations: list[Registration] = []
        self._withdrawing = asyncio.Lock()  # or closing would take the registry from under a withdrawal
        self._wanted: set[str] = set()
        self._revisit: asyncio.TimerHandle | None = None
        self._empty_at = -math.inf
        self._saved = ""
        self._thread = LoopThread("meshlib-agent")
        self._work = [self._thread.submit(work()) for work in (self._run, *chores)]

    async def _run(self) -> None:
        try:
            registry = self._registry = self._make_registry()
        except BaseException:
            log.exception("the registry can't be opened: there will be no configuration")
            self.published.set()
            raise
        self._opened.set()
        await registry.want(self._wanted)
        waiting = asyncio.get_running_loop().call_later(FIRST_UPDATE_WAIT, self._fall_back)
        try:
            while True:
                try:
                    async with contextlib.aclosing(registry.watch()) as watch:
                        async for said in watch:
                            self._take(said)
                except Exception as error:
                    failed = RegistryError(registry.url, f"watching failed: {error!r}")
                    known = self.configuration.trouble
                    if known is None or str(known.error) != str(failed):
                        log.exception("watching %s failed and is begun again", registry.url)
                    self._take(failed)
                await asyncio.sleep(RESTART_WAIT)
        finally:
            waiting.cancel()
            if self._revisit is not None:
                self._revisit.cancel()

    def _take(self, said: Update | RegistryError) -> None:
        if self._ours_to_make():
            self._empty_at = time.monotonic()
        again = self.configuration.take(said, time.monotonic())
        if isinstance(said, RegistryError):
            self._fall_back()
        else:
            self.from_disk = False
        self._after(again)

    def _fall_back(self) -> None:
        """Use what is on disk, if nothing is in force yet."""
        if self.configuration.published:
            return
        update = self._last_good.load()
        trouble = self.configuration.trouble
        if update is None:
            level = logging.INFO if self._ours_to_make() else logging.WARNING
            if not self.published.is_set():
                error = trouble and trouble.error
                log.log(level, "there is no configuration yet, and no last good one on disk: %s", error)
            self.published.set()
            return
        why = trouble.error if trouble is not None else "the registry has said nothing yet"
        log.warning("started with the last good configuration of %s: %s", self._last_good.path, why)
        self.want(update.asked or ())  # or the registry's first word would be of no host at all
        self._saved = update.version
        self.from_disk = True
        self.configuration.trouble = None  # or the log would say that the registry is back
        again = self.configuration.take(update, time.monotonic())
        self.configuration.trouble = trouble
        self._after(again)

    def _ours_to_make(self) -> bool:
        """Whether the registry isn't there yet, and whoever registers makes it."""
        trouble = self.configuration.trouble
        return self._serves and trouble is not None and isinstance(trouble.error.__cause__, FileNotFoundError)

    @property
    def begins_empty(self) -> bool:
        """Whether there is no configuration because nobody has made the database yet that it would stand in.

        A folder or a file of documents that isn't there may be a disk that isn't there, and a policy with it. While the
        database is being made, there is a moment in which it can't be read yet.
        """
        if self._registry is None or not self._registry.url.startswith("sqlite:"):
            return False
        return self._ours_to_make() or time.monotonic() - self._empty_at < FIRST_UPDATE_WAIT

    def _recall(self) -> tuple[Source, ...]:
        """The documents on disk, for a process that starts while those in the registry are no good."""
        kept = self._last_good.load()
        return kept.sources if kept is not None else ()

    def _after(self, again: float | None) -> None:
        if self._revisit is not None:
            self._revisit.cancel()
            self._revisit = None
        if again is not None:
            self._revisit = asyncio.get_running_loop().call_later(again, self._look_again)
        if self.configuration.published:
            self.published.set()
            update = self.configuration.update
            if update is not None and update.version != self._saved and self.configuration.invalid is None:
                self._saved = update.version
                self._last_good.save(update)

    def _look_again(self) -> None:
        self._revisit = None
        self._after(self.configuration.revisit(time.monotonic()))

    def register(
        self, instance: Instance, identity: Callable[[], str] | None = None
    ) -> concurrent.futures.Future[Registration]:
        """Keep `instance` registered from now on; the future is done when the work has begun. See `Registration`."""

        async def begin() -> Registration:
            await self._opened.wait()
            assert self._registry is not None
            registration = Registration(self._registry, instance, identity)
            self._registrations.append(registration)
            return registration

        return self._thread.submit(begin())

    def withdraw(self) -> concurrent.futures.Future[None]:
        """Withdraw everything that is registered."""
        return self._thread.submit(self._withdraw())

    async def _withdraw(self) -> None:
        async with self._withdrawing:
            while self._registrations:
                await self._registrations.pop().withdraw()

    def want(self, hosts: Iterable[str]) -> None:
        """Have the registry watch the services with these full names too."""

        async def ask() -> None:
            if self._registry is None:
                self._wanted.update(hosts)
            else:
                await self._registry.want(hosts)

        with contextlib.suppress(RuntimeError):  # it was closed meanwhile: nobody is asked any more
            self._thread.submit(ask())

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """What is being kept registered."""
        return tuple(self._registrations)

    def close(self, timeout: float) -> None:
        """Withdraw, let go of the registry, end the thread; at most `timeout` seconds for each."""
        self.published.set()  # whoever still waits for a configuration gets none from here

        async def end() -> None:
            for work in self._work:
                work.cancel()
            await self._withdraw()
            if self._registry is not None:
                await self._registry.aclose()

        try:
            self._thread.submit(end()).result(timeout)
        except TimeoutError:
            log.warning("the agent didn't end within %.1f s; its registrations will expire", timeout)
        except Exception:
            log.exception("the agent didn't end in good order; what is still registered will expire")
        finally:
            self._thread.stop(timeout)
