"""What a test may not leave behind: threads, sockets, and tasks of meshlib in a loop that has ended."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import stat
import threading
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

import meshlib

GRACE = 2.0  # seconds that threads and connections which were told to end are given

_DESCRIPTORS = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
_PACKAGES = tuple(str(Path(folder)) + os.sep for folder in meshlib.__path__)


class Held(NamedTuple):
    """What the process holds: its threads, and its sockets as (descriptor, inode)."""

    threads: frozenset[threading.Thread]
    sockets: frozenset[tuple[int, int]]


def held() -> Held:
    """Return what the process holds now."""
    return Held(frozenset(thread for thread in threading.enumerate() if not _is_cached(thread)), _sockets())


def leaked(before: Held) -> list[str]:
    """Return a line for each thing held now and not `before`; what is on its way out is waited for."""
    new = _new(before)
    if new == ([], []):
        return []
    gc.collect()  # a cycle is no leak
    deadline = monotonic() + GRACE
    while (new := _new(before)) != ([], []) and monotonic() < deadline:
        sleep(0.005)
    return new[0] + new[1]


def tasks_of_meshlib(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Return a line for each task of the library that still runs in `loop`."""
    lines = []
    for task in asyncio.all_tasks(loop):
        code = getattr(task.get_coro(), "cr_code", None)
        if code is not None and code.co_filename.startswith(_PACKAGES):
            lines.append(f"a task still running when its loop ended: {task!r}")
    return lines


def _new(before: Held) -> tuple[list[str], list[str]]:
    now = held()
    return (
        [f"a thread still running: {thread!r}" for thread in now.threads - before.threads],
        [f"a socket still open: {_describe(number)}" for number, _ in now.sockets - before.sockets],
    )


def _is_cached(thread: threading.Thread) -> bool:
    return thread.name.startswith("Trio thread")  # trio keeps idle workers for ten seconds; its own affair


def _sockets() -> frozenset[tuple[int, int]]:
    found = set()
    for name in os.listdir(_DESCRIPTORS):
        try:
            status = os.fstat(int(name))
        except OSError:  # the listing's own descriptor, closed by now
            continue
        if stat.S_ISSOCK(status.st_mode):
            found.add((int(name), status.st_ino))
    return frozenset(found)


def _describe(number: int) -> str:
    holders = [entry for entry in gc.get_objects() if _descriptor(entry) == number]
    return f"descriptor {number}, {', '.join(map(repr, holders)) or 'held by nothing that can be found'}"


def _descriptor(entry: object) -> int | None:
    # Not `isinstance`: that asks things what they pretend to be, and Django's settings begin to look for themselves.
    return entry.fileno() if issubclass(type(entry), socket.socket) else None  # type: ignore[attr-defined]
