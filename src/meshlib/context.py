"""What travels from an inbound request to the outbound calls made while serving it.

The middleware sets it, the transports read it, and a caller may tighten the deadline by hand:

    with meshlib.deadline(0.5):
        reply = await client.get("http://reviews/42")

    with meshlib.priority("best-effort"):
        await client.post("http://search/reindex")
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal, NamedTuple

__all__ = [
    "ATTEMPT_HEADER",
    "DEADLINE_HEADER",
    "INHERITED",
    "OVERLOADED_HEADER",
    "PASSED_ON",
    "PRIORITIES",
    "PRIORITY_HEADER",
    "Inherited",
    "deadline",
    "priority",
    "remaining",
]

DEADLINE_HEADER = b"x-envoy-expected-rq-timeout-ms"
"""Milliseconds the caller will wait: relative, so that two machines' clocks need not agree (Envoy's router sets it)."""

ATTEMPT_HEADER = b"x-envoy-attempt-count"
"""Which attempt of a call this is; sent from the second on (Envoy's header)."""

PRIORITY_HEADER = b"x-meshlib-priority"
"""What the call is worth to its caller: which of `PRIORITIES`."""

PRIORITIES = ("critical", "default", "best-effort")
"""What an overloaded service turns away last, and first. A call that says nothing is `default`."""

OVERLOADED_HEADER = b"x-envoy-overloaded"
"""On a response that callers shouldn't retry: more of it is what its sender has too much of. Envoy's router doesn't."""

PASSED_ON = frozenset(
    (
        b"traceparent", b"tracestate", b"baggage", b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid",
        b"x-b3-sampled", b"x-b3-flags", b"x-request-id",
    )
)  # fmt: skip
"""The headers that carry a trace; those that Istio asks applications to pass on."""


class Inherited(NamedTuple):
    """What an outbound call inherits.

    Attributes:
        deadline: monotonic seconds; None: none.
        attempt: which attempt of its caller's call is being served; 1 is the first.
        trace: the headers that carry the trace.
        priority: one of `PRIORITIES`, "" for none.
    """

    deadline: float | None = None
    attempt: int = 1
    trace: tuple[tuple[bytes, bytes], ...] = ()
    priority: str = ""


INHERITED: ContextVar[Inherited] = ContextVar("meshlib.inherited", default=Inherited())  # noqa: B039 - an immutable tuple


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound the calls made inside to hosts of the mesh: together they spend `seconds`. It tightens, and never loosens.

    Example:
        >>> with deadline(0.5):
        ...     remaining() <= 0.5
        True
    """
    if not 0 <= seconds < math.inf:
        raise ValueError(f"deadline is {seconds!r} seconds; a finite number, 0 or above, is expected")
    inherited = INHERITED.get()
    ends = time.monotonic() + seconds
    if inherited.deadline is not None:
        ends = min(ends, inherited.deadline)
    token = INHERITED.set(inherited._replace(deadline=ends))
    try:
        yield
    finally:
        INHERITED.reset(token)


@contextlib.contextmanager
def priority(name: Literal["critical", "default", "best-effort"]) -> Iterator[None]:
    """Give the calls made inside to hosts of the mesh a priority, which travels on with the calls they cause.

    A service that has too much to do turns best-effort away first, and critical last.

    Example:
        >>> with priority("best-effort"):
        ...     INHERITED.get().priority
        'best-effort'
    """
    if name not in PRIORITIES:
        raise ValueError(f"priority is {name!r}; one of {', '.join(PRIORITIES)} is expected")
    token = INHERITED.set(INHERITED.get()._replace(priority=name))
    try:
        yield
    finally:
        INHERITED.reset(token)


def remaining() -> float | None:
    """Seconds left of the deadline in force here, 0.0 when it has run out, None when there is none."""
    ends = INHERITED.get().deadline
    return None if ends is None else max(0.0, ends - time.monotonic())
