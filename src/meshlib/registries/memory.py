"""A registry in memory, with the contract of the real ones, and switches to break and heal it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import ClassVar
from weakref import WeakValueDictionary

from meshlib.errors import RegistryError
from meshlib.registries.base import (
    DEFAULT_TTL,
    MAX_DOCUMENT_BYTES,
    MAX_DOCUMENTS,
    SWEEP_AFTER,
    Instance,
    Lease,
    Update,
    make_update,
)
from meshlib.resources import Resource, ResourceKey, Source, encode

__all__ = ["MemoryRegistry"]


class MemoryRegistry:
    """A registry for as many loops and threads of one process as like it.

    Args:
        name: what follows `memory:` in its URL.
        clock: monotonic seconds, for leases.
    """

    _by_name: ClassVar[WeakValueDictionary[str, MemoryRegistry]] = WeakValueDictionary()

    def __init__(self, name: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.url = f"memory:{name}"
        self._clock = clock
        self._lock = threading.Lock()
        self._leases: dict[str, tuple[Instance, float, float]] = {}
        self._documents: dict[ResourceKey, bytes] = {}
        self._error: RegistryError | None = None
        self._watchers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @classmethod
    def named(cls, name: str) -> MemoryRegistry:
        """The one registry of that name while somebody holds it; one of its own for ""."""
        if not name:
            return cls()
        found = cls._by_name.get(name)
        return found if found is not None else cls._by_name.setdefault(name, cls(name))

    def fail(self, error: RegistryError | str) -> None:
        """From now on reading and writing fail with `error`; watchers are told."""
        self._set_error(error if isinstance(error, RegistryError) else RegistryError(self.url, error))

    def heal(self) -> None:
        """End what `fail` began; watchers get the snapshot again."""
        self._set_error(None)

    async def watch(self) -> AsyncGenerator[Update | RegistryError, None]:
        """See `Registry.watch`."""
        changed = asyncio.Event()
        with self._lock:
            self._watchers[changed] = asyncio.get_running_loop()
        last: Update | str | None = None
        try:
            while True:
                changed.clear()
                item = self._look()
                seen = str(item) if isinstance(item, RegistryError) else item
                if seen != last:
                    last = seen
                    yield item
                await changed.wait()
        finally:
            with self._lock:
                del self._watchers[changed]

    async def want(self, hosts: Iterable[str]) -> None:
        pass  # it tells of every host there is

    async def register(self, instance: Instance, ttl: float = DEFAULT_TTL) -> Lease:
        """See `Registry.register`."""
        lease = Lease(instance, ttl, self._put, self._remove)
        await lease.renew()
        return lease

    async def apply(self, resources: Iterable[Resource]) -> None:
        """See `Registry.apply`."""
        documents = {resource.key: encode(resource) for resource in resources}
        with self._lock:
            self._check()
            for key, body in documents.items():
                if len(body) > MAX_DOCUMENT_BYTES:
                    raise RegistryError(self.url, f"{key} has {len(body)} bytes; {MAX_DOCUMENT_BYTES} are allowed")
            if len(self._documents.keys() | documents.keys()) > MAX_DOCUMENTS:
                raise RegistryError(self.url, f"would hold more than {MAX_DOCUMENTS} documents")
            self._documents.update(documents)
            self._tell()

    async def delete(self, keys: Iterable[ResourceKey]) -> tuple[ResourceKey, ...]:
        """See `Registry.delete`."""
        with self._lock:
            self._check()
            deleted = tuple(key for key in dict.fromkeys(keys) if self._documents.pop(key, None) is not None)
            self._tell()
            return deleted

    async def snapshot(self) -> Update:
        """See `Registry.snapshot`."""
        item = self._look()
        if isinstance(item, RegistryError):
            raise item
        return item

    async def aclose(self) -> None:
        """See `Registry.aclose`."""

    def _look(self) -> Update | RegistryError:
        with self._lock:
            if self._error is not None:
                return self._error
            now = max((renewed for _, _, renewed in self._leases.values()), default=0.0)
            live = [instance for instance, ttl, renewed in self._leases.values() if renewed + ttl >= now]
            sources = [Source(str(key), body) for key, body in sorted(self._documents.items())]
            return make_update(live, sources)

    async def _put(self, instance: Instance, ttl: float) -> None:
        with self._lock:
            self._check()
            now = self._clock()
            self._leases[instance.id] = instance, ttl, now
            for key, (_, lasts, renewed) in tuple(self._leases.items()):
                if renewed + SWEEP_AFTER * lasts < now:
                    del self._leases[key]
            self._tell()

    async def _remove(self, instance: Instance) -> None:
        with self._lock:
            self._check()
            self._leases.pop(instance.id, None)
            self._tell()

    def _set_error(self, error: RegistryError | None) -> None:
        with self._lock:
            self._error = error
            self._tell()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _tell(self) -> None:
        for changed, loop in self._watchers.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)
