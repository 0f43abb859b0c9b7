"""Ports for programs that must be told theirs, such as Consul: blocks that no other test takes meanwhile.

A program that can bind port 0 should. The blocks lie below the range from which systems number outgoing connections, so
none of their ports is taken between choosing and binding, and a block's first port stays bound as the block's lock.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence

__all__ = ["LOOPBACK", "PortBlock"]

LOOPBACK = "127.0.0.1"

_FIRST, _LAST = 10_000, 31_999


class PortBlock:
    """`size` free ports of 127.0.0.1, TCP and UDP, in `ports`; kept from other blocks until `close`."""

    def __init__(self, size: int) -> None:
        starts = list(range(_FIRST, _LAST - size, size + 1))
        random.SystemRandom().shuffle(starts)  # not pytest-randomly's seed: every worker process has that one
        for start in starts:
            ports = range(start + 1, start + 1 + size)
            lock = _lock(start)
            if lock is None:
                continue
            if _all_free(ports):
                self.ports: Sequence[int] = ports
                self._lock = lock
                return
            lock.close()
        raise AssertionError(f"no {size} ports in a row are free between {_FIRST} and {_LAST}")

    def close(self) -> None:
        self._lock.close()


def _lock(port: int) -> socket.socket | None:
    lock = socket.socket()
    try:
        lock.bind((LOOPBACK, port))  # bound, never listening: a second bind fails, and nobody is let in
    except OSError:
        lock.close()
        return None
    return lock


def _all_free(ports: Sequence[int]) -> bool:
    for port in ports:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                try:
                    probe.bind((LOOPBACK, port))
                except OSError:
                    return False
    return True
