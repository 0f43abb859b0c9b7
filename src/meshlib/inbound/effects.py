"""What letting a request in asks of the world, and what the world answers.

Admission (`meshlib.inbound.admit`) is a generator, as an outbound call is: it yields an *effect* and is sent back what
came of it. Most requests yield none. Nothing here touches a socket, a clock or a task; the drivers do.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Protocol

from meshlib.inbound.denials import Denial, Permit
from meshlib.policy.arriving import Arriving
from meshlib.resources import ExtensionProvider

__all__ = ["Admission", "Ask", "Count", "Effect", "FetchKeys", "Pause", "Queue", "Said", "Spending", "Step", "Waiter"]


class FetchKeys(NamedTuple):
    """Have the keys of an issuer fetched anew, because a token names one that isn't known. Answered with nothing.

    Attributes:
        issuer: whose.
        wait: seconds at most.
    """

    issuer: str
    wait: float


class Said(NamedTuple):
    """What an external authorizer said; `status` None: it couldn't be asked, and `why` says so."""

    status: int | None
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    why: str = ""


class Ask(NamedTuple):
    """Ask an external authorizer. Answered with `Said`."""

    provider: ExtensionProvider
    arriving: Arriving


class Spending(NamedTuple):
    """One request to be counted on a limit that processes share.

    Attributes:
        key: of the bucket.
        requests, per, burst: see `RateLimit`; `per` in seconds.
    """

    key: str
    requests: int
    per: float
    burst: int


class Count(NamedTuple):
    """Count a request on shared limits. Each answered (let in, remaining, seconds to reset), None: not counted."""

    spendings: Sequence[Spending]


class Waiter(Protocol):
    """Somebody in a queue for a place. `wake` is called once, from any thread, by whoever gives the place."""

    wake: Any
    granted: bool


class Queue(NamedTuple):
    """Wait until `waiter` is woken, at most `seconds`. Answered with nothing: `waiter.granted` says what came of it."""

    waiter: Waiter
    seconds: float


class Pause(NamedTuple):
    """Wait. Answered with nothing."""

    seconds: float


Effect = FetchKeys | Ask | Count | Queue | Pause
Step = Generator[Effect, Any, Denial | None]
"""One part of admission: why the request is turned away, None: it isn't."""

Admission = Generator[Effect, Any, Denial | Permit]
