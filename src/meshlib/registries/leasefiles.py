"""Leases as files: one small JSON file each, renewed by its modification time.

The newest modification time is the clock. It is the file system's own, so that machines that share the directory need
not agree on the time.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from meshlib.registries.base import MAX_INSTANCES, SWEEP_AFTER, Instance

__all__ = ["LeaseFiles", "write_atomically"]

MAX_BYTES = 65536

Mark = tuple[str, int, int, int]  # name, inode, size, mtime in ns


class _Entry(msgspec.Struct, frozen=True):
    ttl: float
    instance: Instance


class LeaseFiles:
    """The leases in `directory`, which is created with the first of them.

    Args:
        directory: may be missing.
        clock: seconds to stamp renewals with; None takes the file system's own time.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] | None = None) -> None:
        self.directory = directory
        self._clock = clock
        self._read: dict[Mark, _Entry | str] = {}

    def marks(self) -> tuple[Mark, ...]:
        """What is there, as cheaply as it can be told: changes with every renewal. Raises OSError."""
        return tuple(self._scan())

    def live(self) -> tuple[list[Instance], list[str]]:
        """The instances that are not expired, and warnings about files that are no leases. Raises OSError."""
        entries = {mark: self._read.get(mark) or self._entry(mark) for mark in self._scan()}
        self._read = {mark: entry for mark, entry in entries.items() if entry is not None}
        newest = max((mark[3] for mark in self._read), default=0)
        instances, warnings = [], []
        for mark, entry in self._read.items():
            if isinstance(entry, str):
                warnings.append(entry)
            elif newest - mark[3] <= entry.ttl * 1e9:
                instances.append(entry.instance)
        return instances, warnings

    def put(self, instance: Instance, ttl: float) -> None:
        """Write the lease, or renew what is written already. Raises OSError."""
        self.directory.mkdir(exist_ok=True)
        path = self._path(instance)
        body = msgspec.json.encode(_Entry(ttl, instance))
        if _contents(path) != body:
            write_atomically(path, body, durable=False)
        os.utime(path, None if self._clock is None else (self._clock(), self._clock()))
        self._tidy(os.stat(path).st_mtime_ns, ttl)

    def remove(self, instance: Instance) -> None:
        """Take the lease out, if it is there. Raises OSError."""
        self._path(instance).unlink(missing_ok=True)

    def _path(self, instance: Instance) -> Path:
        return self.directory / f"{instance.id}.json"

    def _scan(self) -> Iterator[Mark]:
        try:
            names = sorted(name for name in os.listdir(self.directory) if name.endswith(".json") and name[0] != ".")
        except FileNotFoundError:
            return
        for name in names[:MAX_INSTANCES]:
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(self.directory / name)
                if stat.S_ISREG(found.st_mode):
                    yield name, found.st_ino, found.st_size, found.st_mtime_ns

    def _entry(self, mark: Mark) -> _Entry | str | None:
        path = self.directory / mark[0]
        try:
            body = _contents(path)
            return None if body is None else msgspec.json.decode(body, type=_Entry)
        except (OSError, msgspec.DecodeError) as error:
            return f"{path} is passed over: it is no lease: {error}"

    def _tidy(self, now: int, ttl: float) -> None:
        """Erase what expired long ago; bring back to the present what a clock that was set back left in the future."""
        self.live()
        for (name, _, _, stamp), entry in self._read.items():
            lasts = ttl if isinstance(entry, str) else entry.ttl
            with contextlib.suppress(FileNotFoundError):
                if now - stamp > SWEEP_AFTER * lasts * 1e9:
                    os.unlink(self.directory / name)
                elif stamp - now > lasts * 1e9:
                    os.utime(self.directory / name, ns=(now, now))


def write_atomically(path: Path, body: bytes, *, durable: bool = True) -> None:
    """Put `body` in the place of `path` in one step: a reader sees the old or the new file. Raises OSError."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(body)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _contents(path: Path) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES)
    except FileNotFoundError:
        return None
