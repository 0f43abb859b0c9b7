"""What letting a request in asks of the world, and what the world answers.

Admission (`meshlib.inbound.admit`) is a generator, as an outbound call is: it yields an *effect* and is sent back what
came of it. Most requests yield none. Nothing here touches a socket, a clock or a task; the drivers do.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from meshlib.inbound.denials import Denial, Permit
from meshlib.policy.arriving import Arriving
from meshlib.policy.ratelimit import Spending
from meshlib.resources import ExtensionProvider
from meshlib.state.load import Waiter
from meshlib.state.tokens import KeySource

__all__ = [
    "Admission",
    "Ask",
    "Count",
    "EarlyBody",
    "Effect",
    "FetchKeys",
    "Pause",
    "Queue",
    "ReadBody",
    "Said",
    "Step",
    "Stepped",
]


class FetchKeys(NamedTuple):
    """Have the keys of an issuer fetched anew, because a token names one that isn't known. Answered with nothing.

    Attributes:
        source: whose, and where they are.
        wait: seconds at most.
    """

    source: KeySource
    wait: float


class Said(NamedTuple):
    """What an external authorizer said; `status` None: it couldn't be asked, and `why` says so."""

    status: int | None
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    why: str = ""


class Ask(NamedTuple):
    """Ask an external authorizer. Answered with `Said`.

    Attributes:
        provider: who is asked.
        arriving: the request it is asked about.
        permit: as the steps before made it: the authorizer sees the headers that the application would.
        body: as much of the request's as the authorizer is to get; None: none of it.
        partial: whether that isn't all of it.
    """

    provider: ExtensionProvider
    arriving: Arriving
    permit: Permit | None = None
    body: bytes | None = None
    partial: bool = False


class ReadBody(NamedTuple):
    """Read at most so many bytes of the body before the application does. Answered with `EarlyBody`."""

    most: int


class EarlyBody(NamedTuple):
    """What was read of a body; `partial`: there is more of it, or it didn't come."""

    body: bytes
    partial: bool


class Count(NamedTuple):
    """Count a request on shared limits. Answered with a `Level` for each, None: it couldn't be counted."""

    spendings: Sequence[Spending]


class Queue(NamedTuple):
    """Wait until `waiter` is woken, at most `seconds`. Answered with nothing: the waiter knows what came of it."""

    waiter: Waiter
    seconds: float


class Pause(NamedTuple):
    """Wait. Answered with nothing."""

    seconds: float


Effect = FetchKeys | ReadBody | Ask | Count | Queue | Pause
Step = Generator[Effect, Any, Denial | None]
"""One part of admission: why the request is turned away, None: it isn't."""

Stepped = Denial | None | Step
"""The same of a part that seldom needs an effect: what came of it at once, or a generator where one is needed."""

Admission = Generator[Effect, Any, Denial | Permit]
