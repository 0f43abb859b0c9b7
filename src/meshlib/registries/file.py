"""The registry in files: a directory of YAML and JSON documents, or a single one.

A change is taken when two looks in a row see the same files, so that a file that is being written is not read half.
Several documents of one `apply` are put in place under a lock, which readers respect; only a writer that is killed in
the instant between two renamings leaves some of them behind. Who may not write here can still read.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from pathlib import Path

from meshlib.errors import RegistryError
from meshlib.registries.base import DEFAULT_TTL, MAX_DOCUMENTS, Instance, Lease, Update, make_update, poll
from meshlib.registries.documentfiles import DocumentFiles, Signature
from meshlib.registries.leasefiles import LeaseFiles, Mark, write_atomically
from meshlib.registries.lockfile import exclusive
from meshlib.resources import Resource, ResourceKey, Source, encode

__all__ = ["FileRegistry"]

LOCK_TIMEOUT = 0.25
SNAPSHOT_TRIES = 20
SNAPSHOT_PAUSE = 0.02


class FileRegistry:
    """A registry in `path`.

    Args:
        path: of a directory or a file, absolute. Leases are kept in `.instances` inside it, or beside the file.
        clock: seconds to stamp renewals with; None takes the file system's own time.
    """

    def __init__(self, path: Path, clock: Callable[[], float] | None = None) -> None:
        self.url = f"file://{path}"
        self._documents = DocumentFiles(path, self.url)
        self._inside = LeaseFiles(path / ".instances", clock)
        self._beside = LeaseFiles(path.with_name(f"{path.name}.instances"), clock)

    def watch(self) -> AsyncGenerator[Update | RegistryError, None]:
        """See `Registry.watch`."""
        watcher = _Watcher(self._documents, lambda: self._leases)

        def look(again: bool) -> Update | None:
            with self._explained():
                return watcher.look(again)

        return poll(look)

    async def want(self, hosts: Iterable[str]) -> None:
        pass  # it tells of every host there is

    async def register(self, instance: Instance, ttl: float = DEFAULT_TTL) -> Lease:
        """See `Registry.register`."""
        lease = Lease(instance, ttl, self._put, self._remove)
        await lease.renew()
        return lease

    async def apply(self, resources: Iterable[Resource]) -> None:
        """See `Registry.apply`. Refused for a document that shares its file with others, and in a single file."""
        documents = {resource.key: encode(resource) for resource in resources}
        for key, body in documents.items():
            self._documents.check_size(key, len(body))
        if not documents:
            return
        with self._writing():
            homes = self._documents.homes()
            if len(homes.keys() | documents.keys()) > MAX_DOCUMENTS:
                raise RegistryError(self.url, f"would hold more than {MAX_DOCUMENTS} documents", "delete some first")
            files = {self._documents.home(key, homes): body for key, body in documents.items()}
            for path, body in files.items():
                if not path.exists() or path.read_bytes() != body:
                    write_atomically(path, body)

    async def delete(self, keys: Iterable[ResourceKey]) -> tuple[ResourceKey, ...]:
        """See `Registry.delete`. Refused for a document that shares its file with others, and in a single file."""
        with self._writing():
            homes = self._documents.homes()
            present = tuple(key for key in dict.fromkeys(keys) if key in homes)
            for path in [self._documents.home(key, homes) for key in present]:
                path.unlink(missing_ok=True)
            return present

    async def snapshot(self) -> Update:
        """See `Registry.snapshot`."""
        for _ in range(SNAPSHOT_TRIES):
            with self._explained():
                sources = self._documents.read(self._documents.signature())
                if sources is not None:
                    return _update(self._leases, sources)
            await asyncio.sleep(SNAPSHOT_PAUSE)
        raise RegistryError(self.url, "changes all the time while it is read", "write less often")

    async def aclose(self) -> None:
        """See `Registry.aclose`."""

    @property
    def _leases(self) -> LeaseFiles:
        return self._inside if self._documents.is_directory() else self._beside

    async def _put(self, instance: Instance, ttl: float) -> None:
        with self._explained():
            self._leases.put(instance, ttl)

    async def _remove(self, instance: Instance) -> None:
        with self._explained():
            self._leases.remove(instance)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._explained():
            if not self._documents.is_directory():
                raise RegistryError(self.url, "is a single file, which only its author can change", "edit the file")
            with exclusive(self._documents.lock, LOCK_TIMEOUT):
                yield

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise RegistryError(self.url, "is being written by another process", "try again") from None
        except FileNotFoundError as error:
            raise RegistryError(self.url, f"{error.filename} does not exist", "put it back") from error
        except OSError as error:
            way_out = _WAYS_OUT.get(error.errno or 0, "see the system's log")
            raise RegistryError(self.url, f"{error.strerror}: {error.filename}", way_out) from error


class _Watcher:
    """What one watch has seen of the documents and the leases."""

    def __init__(self, documents: DocumentFiles, leases: Callable[[], LeaseFiles]) -> None:
        self._documents = documents
        self._leases = leases
        self._first = True
        self._pending: Signature | None = None
        self._taken: Signature | None = None
        self._sources: tuple[Source, ...] = ()
        self._marks: tuple[Mark, ...] = ()

    def look(self, again: bool) -> Update | None:
        """See `poll`. Raises OSError, RegistryError."""
        news = self._take_documents(again)
        if self._taken is None or (again and not news):
            return None
        leases = self._leases()
        marks = leases.marks()
        if not news and marks == self._marks:
            return None
        self._marks = marks
        return _update(leases, self._sources)

    def _take_documents(self, again: bool) -> bool:
        before, self._pending = self._pending, None
        self._pending = self._documents.signature()
        settled, self._first = self._first or self._pending == before, False
        if not settled or not (again or self._pending != self._taken):
            return False
        sources = self._documents.read(self._pending)
        if sources is None:
            return False
        self._taken, self._sources = self._pending, sources
        return True


def _update(leases: LeaseFiles, sources: tuple[Source, ...]) -> Update:
    instances, warnings = leases.live()
    return make_update(instances, sources, warnings)


_PERMISSION = "let this user read the documents and, to register or apply, write the directory"
_WAYS_OUT = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "mount it writable to register or apply; a process without MESHLIB_SERVICE only reads",
    errno.ENOSPC: "make room; nobody expires until then",
    errno.ENOTDIR: "name a directory or a file, as in file:///etc/mesh",
}
