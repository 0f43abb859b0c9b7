"""Locks between processes, on files of their own. The kernel lets go of them when their holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

__all__ = ["exclusive", "shared"]

RETRY = 0.005
"""Seconds between two tries for a lock; it is held for milliseconds."""


@contextlib.contextmanager
def exclusive(path: str, timeout: float) -> Iterator[None]:
    """Hold the lock at `path`, which is created, alone. Raises TimeoutError after `timeout` seconds, and OSError."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    give_up = time.monotonic() + timeout
    try:
        while not _try(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > give_up:
                raise TimeoutError(path)
            time.sleep(RETRY)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def shared(path: str) -> Iterator[bool]:
    """Hold the lock at `path` together with other readers; says whether no writer stood in the way.

    Where nobody ever wrote there is no lock, and none in the way either.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        yield True
        return
    try:
        yield _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
