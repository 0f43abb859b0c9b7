"""What an arriving request says of the call it belongs to. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.context import (
    ATTEMPT_HEADER,
    DEADLINE_HEADER,
    INHERITED,
    PASSED_ON,
    PRIORITIES,
    PRIORITY_HEADER,
    Inherited,
)

__all__ = ["inherit", "prefer"]

LONGEST_DEADLINE_MS = 86_400_000
"""A day; a caller that says it waits longer has no deadline worth the name."""

MOST_ATTEMPTS = 1000

MOST_TRACE_HEADERS = 16
LONGEST_TRACE_VALUE = 8192
"""Bytes; W3C Baggage asks for no more. What is longer, or beyond the sixteenth, isn't passed on."""

_READ = PASSED_ON | {DEADLINE_HEADER, ATTEMPT_HEADER, PRIORITY_HEADER}
_PRIORITIES = {name.encode(): name for name in PRIORITIES}


def inherit(headers: Iterable[tuple[bytes, bytes]], now: float) -> Inherited | None:
    """What the calls made while serving a request inherit of it. What makes no sense is passed over.

    Args:
        headers: of the request, names in lower case.
        now: monotonic seconds.

    Returns:
        None when the caller has stopped waiting, so that nobody wants the answer.
    """
    left: int | None = None
    attempt = 1
    priority = ""
    trace: list[tuple[bytes, bytes]] | None = None
    for name, value in headers:
        if name not in _READ:
            continue
        if name == DEADLINE_HEADER:
            given = _number(value, LONGEST_DEADLINE_MS)
            if given is not None and (left is None or given < left):
                left = given
        elif name == ATTEMPT_HEADER:
            attempt = _number(value, MOST_ATTEMPTS) or 1
        elif name == PRIORITY_HEADER:
            priority = _PRIORITIES.get(value, "")
        elif trace is None:
            trace = [(name, value)] if len(value) <= LONGEST_TRACE_VALUE else None
        elif len(trace) < MOST_TRACE_HEADERS and len(value) <= LONGEST_TRACE_VALUE:
            trace.append((name, value))
    if left == 0:
        return None
    deadline = None if left is None else now + left / 1000
    return Inherited(deadline, attempt, tuple(trace) if trace else (), priority)


def prefer(priority: str) -> None:
    """Have the calls made while serving a request inherit the priority that it came in with.

    That may be another than its header says: a rule gave it, or the header isn't believed.
    """
    inherited = INHERITED.get()
    if priority == "default":  # calls are that without saying so
        priority = ""
    if inherited.priority != priority:
        INHERITED.set(inherited._replace(priority=priority))


_DIGITS = len(str(LONGEST_DEADLINE_MS))


def _number(value: bytes, most: int) -> int | None:
    """The number `value` is in decimal digits; None: it isn't one, or more than `most`."""
    if not value.isdigit() or len(value) > _DIGITS:
        return None
    number = int(value)
    return number if number <= most else None
