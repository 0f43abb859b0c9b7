"""Consul as a registry: instances by its health, documents in its key-value store, its own mesh configuration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable

from meshlib.errors import RegistryError
from meshlib.registries.base import DEFAULT_TTL, MAX_INSTANCES, Instance, Lease, Update
from meshlib.registries.consul.client import ConsulClient
from meshlib.registries.consul.demand import MAX_SERVICES, Scope, believed, demanded, snapshot_of, unanswered
from meshlib.registries.consul.documents import Documents, DocumentStore
from meshlib.registries.consul.parts import Parts
from meshlib.registries.consul.questions import Question
from meshlib.registries.consul.registration import Registrations
from meshlib.resources import Resource, ResourceKey

__all__ = ["ConsulRegistry"]

COALESCE = 0.02
"""Seconds to wait for more after a change: one registration wakes several queries."""

HOLD = 1.0
"""Seconds a snapshot waits for the answers that others made necessary, before it is made without them."""

FORGET_AFTER = 60.0
"""Seconds after which a name that has no instances, and that nobody wanted again, is no longer watched."""


class ConsulRegistry:
    """The registry that a Consul agent gives access to.

    Args:
        client: of the agent; closed with the registry. An identity source may share it.
        service: whose intentions are wanted before it is registered here, None: nobody's.
        clock: monotonic seconds.
    """

    def __init__(
        self, client: ConsulClient, *, service: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.client = client
        client.service = service or ""
        self._clock = clock
        self._service = service
        self._registrations = Registrations(client, clock)
        self._documents = DocumentStore(client)
        names = [name for name in client.settings.watch if name != "*"]
        self._everything = "*" in client.settings.watch
        self._configured = frozenset(f"{name.lower()}.default.svc.cluster.local" for name in names)
        self._wanted: dict[str, float] = {}
        self._empty: frozenset[str] = frozenset()
        self._watching: set[asyncio.Event] = set()

    @property
    def url(self) -> str:
        """See `Registry.url`."""
        return self.client.url

    async def watch(self) -> AsyncGenerator[Update | RegistryError, None]:
        """See `Registry.watch`. After a snapshot that came while some answer is missing, its error comes again."""
        changed = asyncio.Event()
        parts = Parts(self.client, changed.set)
        self._watching.add(changed)
        last: Update | None = None
        documents = Question("documents", self.client.settings.prefix)
        readable: Documents | None = None
        trouble = ""
        try:
            while True:
                changed.clear()
                parts.check()
                await self._settled(parts, changed)
                scope, error = self._scope(), parts.error
                update = None
                if not unanswered(scope, parts.known, demanded(scope, parts.known)):
                    known = parts.known
                    if believed(scope, known):
                        readable = known[documents]
                    elif readable is not None:
                        known = known | {documents: readable}  # a token that lost its right deletes no document
                    update = snapshot_of(scope, known)
                    self._empty = _without_instances(update)
                if update is not None and (_differs(update, last) or (trouble and error is None)):
                    last, trouble = update, ""
                    yield update
                if error is not None and str(error) != trouble:
                    trouble = str(error)
                    yield error
                await changed.wait()
                await asyncio.sleep(COALESCE)
        finally:
            self._watching.discard(changed)
            await parts.aclose()

    async def want(self, hosts: Iterable[str]) -> None:
        """See `Registry.want`."""
        now = self._clock()
        before = set(self._wanted)
        self._wanted.update(dict.fromkeys(hosts, now))
        for host in self._empty & self._wanted.keys():
            if now - self._wanted[host] > FORGET_AFTER:
                del self._wanted[host]
        if before != self._wanted.keys():
            self._look_again()

    async def register(self, instance: Instance, ttl: float = DEFAULT_TTL) -> Lease:
        """See `Registry.register`. From now on snapshots have the intentions for its service."""
        self.client.service = instance.service
        lease = Lease(instance, self.client.settings.ttl or ttl, self._registrations.put, self._registrations.remove)
        await lease.renew()
        if self._service is None:
            self._service = instance.service
            self._look_again()
        return lease

    async def apply(self, resources: Iterable[Resource]) -> None:
        """See `Registry.apply`, and `DocumentStore` for what is all or none."""
        await self._documents.apply(resources)

    async def delete(self, keys: Iterable[ResourceKey]) -> tuple[ResourceKey, ...]:
        """See `Registry.delete`."""
        return await self._documents.delete(keys)

    async def snapshot(self) -> Update:
        """See `Registry.snapshot`: of every service and every document, whatever is wanted."""
        changed = asyncio.Event()
        parts = Parts(self.client, changed.set, once=True)
        wanted = frozenset(self._wanted)
        scope = Scope(self.client.settings.prefix, wanted, everything=True, serving=self._service, limit=MAX_INSTANCES)
        try:
            while True:
                changed.clear()
                parts.check()
                parts.demand(demanded(scope, parts.known))
                if parts.error is not None:
                    raise parts.error
                if not parts.pending:
                    return snapshot_of(scope, parts.known)
                await changed.wait()
                await asyncio.sleep(COALESCE)
        finally:
            await parts.aclose()

    async def aclose(self) -> None:
        """See `Registry.aclose`."""
        await self.client.aclose()

    def _scope(self) -> Scope:
        hosts = self._configured | self._wanted.keys()
        return Scope(self.client.settings.prefix, hosts, self._everything, self._service)

    async def _settled(self, parts: Parts, changed: asyncio.Event) -> None:
        """Have everything asked that has become interesting, and wait a while for the answers."""
        try:
            async with asyncio.timeout(HOLD):
                while True:
                    parts.demand(demanded(self._scope(), parts.known))
                    if not parts.pending:
                        return
                    await changed.wait()
                    await asyncio.sleep(COALESCE * min(1.0, len(parts.known) / MAX_SERVICES))
                    changed.clear()
                    parts.check()
        except TimeoutError:
            return

    def _look_again(self) -> None:
        for changed in self._watching:
            changed.set()


def _without_instances(update: Update) -> frozenset[str]:
    """The names that were asked for and have nobody."""
    served = {f"{instance.service}.{instance.namespace}.svc.cluster.local" for instance in update.instances}
    served |= {f"{instance.service}.service.{instance.datacenter}.consul" for instance in update.instances}
    return (update.asked or frozenset()) - served


def _differs(update: Update, last: Update | None) -> bool:
    return last is None or (update.version, update.warnings) != (last.version, last.warnings)
