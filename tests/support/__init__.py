"""What tests share: waiting for a condition within a bound."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

import anyio

__all__ = ["eventually", "eventually_async"]

T = TypeVar("T")

_INTERVAL = 0.005


def eventually(condition: Callable[[], T], timeout: float = 5.0) -> T:
    """Return the first true value of `condition`; fail when there is none within `timeout` seconds."""
    deadline = monotonic() + timeout
    while not (value := condition()):
        if monotonic() > deadline:
            raise AssertionError(_too_late(condition, timeout, value))
        sleep(_INTERVAL)
    return value


async def eventually_async(condition: Callable[[], T], timeout: float = 5.0) -> T:
    """Do as `eventually` does, letting the other tasks of the loop run between two looks."""
    deadline = monotonic() + timeout
    while not (value := condition()):
        if monotonic() > deadline:
            raise AssertionError(_too_late(condition, timeout, value))
        await anyio.sleep(_INTERVAL)
    return value


def _too_late(condition: Callable[[], T], timeout: float, value: T) -> str:
    name = getattr(condition, "__qualname__", repr(condition))
    return f"{name} did not come true within {timeout} s; its last value was {value!r}"
