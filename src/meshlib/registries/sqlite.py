"""The registry in one SQLite file, for all processes of one machine.

It holds leases and documents, and heals by itself. A file that is gone or damaged is written anew by the next process
that renews a lease or applies a document: leases come back with their own renewals, and since the new file has never
held a document, the first process that remembers some puts them in, be it a reader or a writer. Deleting the file is
therefore no way to delete documents.

Its clock stands in the file. A renewal moves it on by the time since the renewal before, but by no more than that
lease's interval: after an hour in which nobody could write, the first to renew must not find everybody else an hour
late. A reboot, which starts `time.monotonic()` again, moves it by nothing.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from meshlib.errors import RegistryError
from meshlib.registries.base import (
    DEFAULT_TTL,
    MAX_DOCUMENT_BYTES,
    MAX_DOCUMENTS,
    MAX_INSTANCES,
    SWEEP_AFTER,
    Instance,
    Lease,
    Update,
    make_update,
    poll,
)
from meshlib.registries.database import Damaged, Database
from meshlib.resources import Resource, ResourceKey, Source, encode

__all__ = ["SQLiteRegistry"]

# held: whether the file has ever held a document. revision: changes with the documents. clock: see the top of this
# module; stamp: the monotonic time of the renewal that last moved it.
_SCHEMA = (
    "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), held INTEGER, revision TEXT, clock REAL, stamp REAL)",
    "CREATE TABLE instances (id TEXT PRIMARY KEY, body BLOB, digest BLOB, renewed REAL, ttl REAL) WITHOUT ROWID",
    """CREATE TABLE documents (kind TEXT, namespace TEXT, name TEXT, body BLOB, digest BLOB,
       PRIMARY KEY (kind, namespace, name))""",
    "INSERT INTO meta VALUES (1, 0, '', 0, 0)",
)

Documents = dict[ResourceKey, bytes]


class SQLiteRegistry:
    """A registry in the file at `path`.

    Args:
        path: absolute; created when something is first written, with its directory.
        clock: monotonic seconds, the same for every process of the machine.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = f"sqlite://{path}"
        self._clock = clock
        self._database = Database(path, self.url, _SCHEMA, prepare=self._seed, verify=_verify)
        self._documents: Documents = {}
        self._sources: tuple[Source, ...] = ()
        self._revision: str | None = None

    def watch(self) -> AsyncGenerator[Update | RegistryError, None]:
        """See `Registry.watch`."""
        seen: object = None

        def look(again: bool) -> Update | None:
            nonlocal seen
            now = self._database.mark()
            if now == seen and not again:
                return None
            update = self._read()
            seen = now
            return update

        return poll(look)

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
        for key, body in documents.items():
            if len(body) > MAX_DOCUMENT_BYTES:
                raise RegistryError(
                    self.url, f"{key} has {len(body)} bytes; {MAX_DOCUMENT_BYTES} are allowed", "split it"
                )

        def work(connection: sqlite3.Connection) -> None:
            _insert(connection, documents)
            if connection.execute("SELECT count(*) FROM documents").fetchone()[0] > MAX_DOCUMENTS:
                raise RegistryError(self.url, f"would hold more than {MAX_DOCUMENTS} documents", "delete some first")

        if documents:
            self._database.write(work)

    async def delete(self, keys: Iterable[ResourceKey]) -> tuple[ResourceKey, ...]:
        """See `Registry.delete`."""
        wanted = tuple(dict.fromkeys(keys))

        def work(connection: sqlite3.Connection) -> tuple[ResourceKey, ...]:
            statement = "DELETE FROM documents WHERE kind = ? AND namespace = ? AND name = ?"
            deleted = tuple(key for key in wanted if connection.execute(statement, tuple(key)).rowcount)
            if deleted:
                connection.execute(_TOUCH)
            return deleted

        return self._database.write(work)

    async def snapshot(self) -> Update:
        """See `Registry.snapshot`."""
        return self._read()

    async def aclose(self) -> None:
        """See `Registry.aclose`."""
        self._database.close()

    def _read(self) -> Update:
        held, update = self._database.read(self._snapshot)
        if not held and self._documents:
            self._database.write(lambda connection: None)
            _, update = self._database.read(self._snapshot)
        return update

    def _snapshot(self, connection: sqlite3.Connection) -> tuple[bool, Update]:
        held, revision = _row(connection, "SELECT held, revision FROM meta")
        if held and revision != self._revision:
            self._documents = _documents(connection)
            self._sources = tuple(Source(str(key), body) for key, body in self._documents.items())
            self._revision = revision
        return bool(held), make_update(_instances(connection), self._sources if held else ())

    def _seed(self, connection: sqlite3.Connection) -> None:
        (held,) = _row(connection, "SELECT held FROM meta")
        if not held and self._documents:
            _insert(connection, self._documents)

    async def _put(self, instance: Instance, ttl: float) -> None:
        body = msgspec.json.encode(instance)

        def work(connection: sqlite3.Connection) -> None:
            clock, stamp = _row(connection, "SELECT clock, stamp FROM meta")
            now = self._clock()
            clock += min(max(now - stamp, 0.0), ttl / 3)
            connection.execute("UPDATE meta SET clock = ?, stamp = ?", (clock, now))
            row = (instance.id, body, _digest(instance.id, body), clock, ttl)
            connection.execute("INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?, ?)", row)
            connection.execute("DELETE FROM instances WHERE renewed + ttl * ? < ?", (SWEEP_AFTER, clock))

        self._database.write(work)

    async def _remove(self, instance: Instance) -> None:
        self._database.write(
            lambda connection: connection.execute("DELETE FROM instances WHERE id = ?", (instance.id,)).rowcount
        )


_TOUCH = "UPDATE meta SET held = 1, revision = hex(randomblob(8))"


def _insert(connection: sqlite3.Connection, documents: Documents) -> None:
    rows = [(*key, body, _digest(str(key), body)) for key, body in documents.items()]
    connection.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?)", rows)
    connection.execute(_TOUCH)


def _instances(connection: sqlite3.Connection) -> list[Instance]:
    found = []
    live = "SELECT instances.id, body, digest FROM instances, meta WHERE renewed + ttl >= clock LIMIT ?"
    for name, body, digest in connection.execute(live, (MAX_INSTANCES + 1,)):
        _check(name, body, digest)
        try:
            found.append(msgspec.json.decode(body, type=Instance))
        except msgspec.ValidationError as error:
            raise Damaged(f"instance {name}: {error}") from error
    if len(found) > MAX_INSTANCES:
        raise Damaged(f"it holds more than {MAX_INSTANCES} instances")
    return found


def _documents(connection: sqlite3.Connection) -> Documents:
    found = {}
    ordered = "SELECT kind, namespace, name, body, digest FROM documents ORDER BY kind, namespace, name LIMIT ?"
    for kind, namespace, name, body, digest in connection.execute(ordered, (MAX_DOCUMENTS,)):
        key = ResourceKey(kind, namespace, name)
        _check(str(key), body, digest)
        found[key] = body
    return found


def _verify(connection: sqlite3.Connection) -> None:
    _instances(connection)
    _documents(connection)


def _row(connection: sqlite3.Connection, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(query).fetchone()
    if row is None:
        raise Damaged("its table of facts is empty")
    return row


def _check(name: object, body: object, digest: object) -> None:
    # SQLite keeps no checksums: rubbish in the middle of a row would pass for its content.
    if not (isinstance(name, str) and isinstance(body, bytes) and _digest(name, body) == digest):
        raise Damaged(f"the checksum of {name!r:.80} is wrong")


def _digest(name: str, body: bytes) -> bytes:
    return blake2b(body, digest_size=8, key=blake2b(name.encode(), digest_size=32).digest()).digest()
