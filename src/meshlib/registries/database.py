"""One SQLite file shared by the processes of one machine: opened, read, written, and replaced when it is damaged.

Every writer holds a lock file beside the database, so that whoever finds the file damaged can move it aside knowing
that nobody is writing to it. A journal is never left behind either: the next database of that name would play it back.

No file descriptor is ever opened on the database but SQLite's own: closing one would drop, by POSIX, every lock this
process holds on the file. A look at the file is therefore SQLite's own `data_version`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from meshlib.errors import RegistryError
from meshlib.registries.base import MAX_DOCUMENT_BYTES
from meshlib.registries.lockfile import exclusive

__all__ = ["Damaged", "Database"]

BUSY_TIMEOUT = 0.25
"""Seconds to wait for another process's lock: the agent's thread must not hang, and it tries again soon."""

APPLICATION_ID = 0x6D657368
FORMAT = 1
MAX_SET_ASIDE = 1000

Answer = TypeVar("Answer")
Work = Callable[[sqlite3.Connection], Answer]

# SQLite's locks and mutexes don't survive a fork in the middle of a transaction, so a fork waits for its end.
_busy = threading.Lock()
os.register_at_fork(before=_busy.acquire, after_in_parent=_busy.release, after_in_child=_busy.release)

# Connections of the parent: the child may neither use nor close them.
_inherited: list[sqlite3.Connection] = []


class Damaged(Exception):
    """What is in the file is not what was written there."""


class Database:
    """A database file that is created when it is first written, and again when it is gone or damaged.

    Args:
        path: of the file, absolute.
        url: of the registry, for errors.
        schema: statements that create the tables.
        prepare: runs first in every writing transaction.
        verify: reads everything; raises Damaged or sqlite3.DatabaseError when something is wrong.
    """

    def __init__(
        self, path: Path, url: str, schema: tuple[str, ...], prepare: Work[object], verify: Work[object]
    ) -> None:
        self.path = path
        self.url = url
        self._schema = schema
        self._prepare = prepare
        self._verify = verify
        self._reader: sqlite3.Connection | None = None
        self._opened: tuple[int, ...] = ()
        self._generation = 0
        self._suspect = False
        # Whether it was a registry when we last looked: what never was one isn't ours to set aside.
        self._known = False

    def mark(self) -> tuple[int, int]:
        """A cheap look: changes when another process, or this one, has written. Raises RegistryError."""
        with self._reading() as connection:
            return self._generation, connection.execute("PRAGMA data_version").fetchone()[0]

    def read(self, work: Work[Answer]) -> Answer:
        """Run `work` in one reading transaction. Raises RegistryError."""
        with self._reading() as connection:
            connection.execute("BEGIN")
            if self._is_blank(connection):
                # Its first writer has made the file and is about to fill it: as good as no file.
                raise RegistryError(self.url, "is empty", _CREATE) from FileNotFoundError(self.path)
            answer = work(connection)
            connection.execute("COMMIT")
            self._suspect = False
            self._known = True
            return answer

    def write(self, work: Work[Answer]) -> Answer:
        """Run `work` in one writing transaction; a missing or damaged file is replaced. Raises RegistryError."""
        with _busy, self._explained(), self._writers_lock():
            for _ in range(3):
                self._create()
                before = self._identity()
                try:
                    answer = self._transact(work)
                except (Damaged, sqlite3.DatabaseError) as error:
                    if not _is_damage(error) or not self._known:
                        raise
                    self._set_aside()
                else:
                    # Somebody may have deleted the file in the meantime: then nobody will ever read what was written.
                    with contextlib.suppress(FileNotFoundError):
                        if self._identity() == before:
                            return answer
        raise RegistryError(self.url, "was replaced again and again while it was written", "see who else uses the file")

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with _busy:
            self._forget_reader()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with _busy, self._explained():
            try:
                yield self._open_reader()
            except BaseException as error:
                self._suspect = self._suspect or _is_damage(error)
                self._forget_reader()
                raise

    def _open_reader(self) -> sqlite3.Connection:
        identity = (os.getpid(), *self._identity())
        if self._reader is None or identity != self._opened:
            self._forget_reader()
            self._reader = self._connect()
            self._opened = identity
            self._generation += 1
        return self._reader

    def _forget_reader(self) -> None:
        if self._reader is not None:
            if self._opened[0] == os.getpid():
                self._reader.close()
            else:
                _inherited.append(self._reader)
        self._reader = None

    def _transact(self, work: Work[Answer]) -> Answer:
        with contextlib.closing(self._connect()) as connection:
            # Closing rolls back what is not committed.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            if self._is_blank(connection):
                for statement in self._schema:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {FORMAT}")
            elif self._suspect:
                self._verify(connection)
            self._prepare(connection)
            answer = work(connection)
            connection.execute("COMMIT")
            self._suspect = False
            self._known = True
            return answer

    def _connect(self) -> sqlite3.Connection:
        uri = f"file:{quote(os.fspath(self.path))}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_DOCUMENT_BYTES + 65536)
        return connection

    def _is_blank(self, connection: sqlite3.Connection) -> bool:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        if application == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            return True
        if application != APPLICATION_ID:
            raise RegistryError(self.url, "is a SQLite database of something else", "name another file")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found != FORMAT:
            raise RegistryError(self.url, f"has format {found}, this meshlib knows {FORMAT}", "use one meshlib for all")
        return False

    def _identity(self) -> tuple[int, int]:
        found = os.stat(self.path)
        if not stat.S_ISREG(found.st_mode):
            raise RegistryError(
                self.url, "is not a regular file", "name a file, as in sqlite:///var/lib/mesh/registry.db"
            )
        return found.st_dev, found.st_ino

    def _create(self) -> None:
        # O_EXCL: the descriptor that is closed here is on a new file, on which nobody can hold a lock yet.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def _set_aside(self) -> None:
        for number in range(1, MAX_SET_ASIDE):
            target = f"{self.path}.damaged-{number}"
            if not os.path.exists(target):
                # The journal first: it must not stay when the process is killed between the two.
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.path}-journal", f"{target}-journal")
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self.path, target)
                return
        raise RegistryError(self.url, f"is damaged, and so were {number} before it", f"remove {self.path}.damaged-*")

    @contextlib.contextmanager
    def _writers_lock(self) -> Iterator[None]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(exclusive(f"{self.path}.lock", BUSY_TIMEOUT))
            except TimeoutError:
                raise RegistryError(self.url, *_LOCKED) from None
            yield

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except OSError as error:
            if isinstance(error, FileNotFoundError) and os.fspath(error.filename) == os.fspath(self.path):
                raise RegistryError(self.url, "does not exist", _CREATE) from error
            way_out = "let this user write the file and its directory, or name another in MESHLIB_REGISTRY"
            raise RegistryError(self.url, f"{error.strerror}: {error.filename or self.path}", way_out) from error
        except (Damaged, sqlite3.Error) as error:
            if _is_damage(error):
                if self._known:
                    raise RegistryError(self.url, f"is damaged: {error}", _DAMAGED) from error
                raise RegistryError(self.url, f"is not a registry: {error}", _FOREIGN) from error
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            raise RegistryError(self.url, *_PROBLEMS.get(code, (str(error), ""))) from error


def _is_damage(error: BaseException) -> bool:
    if isinstance(error, sqlite3.ProgrammingError) or not isinstance(error, (Damaged, sqlite3.Error)):
        return False
    # Without a code it is the sqlite3 module itself that can't make sense of a value.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    known = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_TOOBIG)
    return known or (code == sqlite3.SQLITE_ERROR and str(error).startswith("no such "))


_CREATE = "whoever registers or applies next creates it"
_DAMAGED = "the next process to renew its registration sets it aside as .damaged-<n> and writes a new one"
_FOREIGN = "name another file in MESHLIB_REGISTRY, or move this one away"
_LOCKED = ("is locked by another process", "it is tried again; `fuser` on the file shows who holds it")
_READ_ONLY = ("cannot be written: it is read-only", "let this user write the file and its directory")
_PROBLEMS = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: ("the disk is full", "make room; nobody expires until then"),
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "let this user read and write the file and its directory"),
    sqlite3.SQLITE_IOERR: ("the disk reports an error", "see the system's log; nobody expires until then"),
}
