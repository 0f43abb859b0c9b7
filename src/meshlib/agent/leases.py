"""Our own registration: announced, renewed, put back when it is lost, withdrawn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from meshlib.errors import RegistryError
from meshlib.registries.base import Instance, Lease, Registry

__all__ = ["Registration"]

log = logging.getLogger("meshlib.agent")

T = TypeVar("T")

IDENTITY_LOOK = 0.05
"""Seconds between two looks at whether this process has its first certificate."""

FIRST_WAIT = 0.1
LONGEST_WAIT = 2.0
"""Seconds before a failed registration is tried again, the first time and at the most; a renewal: to its interval."""


class Registration:
    """One instance kept registered by a task on the agent's loop.

    Args:
        registry: where.
        instance: what.
        identity: the SPIFFE ID the process serves mTLS with, "" as long as there is none yet, which is waited for;
            without it, plain connections are announced.

    Attributes:
        error: why it isn't registered, or couldn't be renewed; None when all is well.
        lease: None until it is registered.
    """

    def __init__(self, registry: Registry, instance: Instance, identity: Callable[[], str] | None = None) -> None:
        self.instance = instance
        self.error: RegistryError | None = None
        self.lease: Lease | None = None
        self._registry = registry
        self._identity = identity
        self._task = asyncio.get_running_loop().create_task(self._keep())
        self.registered = asyncio.Event()

    async def withdraw(self) -> None:
        """Stop renewing and take the entry out; if the registry is away it expires by itself."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self.lease is not None:
            try:
                await self.lease.withdraw()
            except RegistryError as error:
                log.warning(
                    "the registration of %s can't be withdrawn and will expire: %s", self.instance.service, error
                )

    async def _keep(self) -> None:
        if self._identity is not None:
            while not (identity := self._identity()):  # noqa: ASYNC110 - it comes from another thread; announced as plain, callers would be refused, or unprotected
                await asyncio.sleep(IDENTITY_LOOK)
            self.instance = msgspec.structs.replace(self.instance, identity=identity)
        self.lease = lease = await self._persist(lambda: self._registry.register(self.instance), LONGEST_WAIT)
        self.registered.set()
        log.info("registered %s at %s:%d", self.instance.service, self.instance.host, self.instance.port)
        while True:
            await asyncio.sleep(lease.interval)
            if self._identity is not None and (identity := self._identity()) != lease.instance.identity:
                lease.instance = msgspec.structs.replace(lease.instance, identity=identity)
            await self._persist(lease.renew, lease.interval)

    async def _persist(self, act: Callable[[], Awaitable[T]], longest: float) -> T:
        """Do `act` until the registry lets us; tenacity paces what goes wrong, and costs nothing when nothing does."""
        try:
            done = await self._act(act)
        except RegistryError as error:
            self._failed(error)
            done = await self._insist(act, longest)
        if self.error is not None:
            log.info("the registration of %s is in order again", self.instance.service)
            self.error = None
        return done

    async def _act(self, act: Callable[[], Awaitable[T]]) -> T:
        try:
            return await act()
        except RegistryError:
            raise
        except Exception as error:
            # What nobody foresaw must not end the renewals unseen: the entry would expire while we serve.
            raise RegistryError(self._registry.url, f"failed: {error!r}") from error

    async def _insist(self, act: Callable[[], Awaitable[T]], longest: float) -> T:
        import tenacity  # 70 ms to import, and needed only when the registry is away

        async def again() -> T:
            try:
                return await self._act(act)
            except RegistryError as error:
                self._failed(error)
                raise

        pace = tenacity.wait_random_exponential(multiplier=FIRST_WAIT, max=longest)
        await asyncio.sleep(FIRST_WAIT)
        retrying = tenacity.AsyncRetrying(wait=pace, retry=tenacity.retry_if_exception_type(RegistryError))
        return await retrying(again)

    def _failed(self, error: RegistryError) -> None:
        if self.error is None:
            log.warning("%s can't be registered just now: %s", self.instance.service, error)
        self.error = error
