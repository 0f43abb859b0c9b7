"""What a call asks of the world, and what the world answers.

The flow (`meshlib.call.flow`) is a generator: it yields an *effect* and is sent back what came of it. Nothing here
touches a socket, a clock or a task; the drivers do.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from meshlib.policy.outcome import Failure, LocalReply, Outcome
from meshlib.state.endpoint import EndpointState

__all__ = ["Backoff", "Effect", "Failure", "Flow", "LocalReply", "Outcome", "Race", "Send"]


class Send:
    """Send the request to one endpoint and wait for the response head.

    Attributes:
        endpoint: whom to send to.
        attempt: 1 for the first try of the call.
        expires: monotonic seconds by which the head must have come; None waits as long as the client's own timeouts.
        connect_timeout: seconds to open a connection.
    """

    __slots__ = ("attempt", "connect_timeout", "endpoint", "expires")

    def __init__(self, endpoint: EndpointState, attempt: int, expires: float | None, connect_timeout: float) -> None:
        self.endpoint = endpoint
        self.attempt = attempt
        self.expires = expires
        self.connect_timeout = connect_timeout


class Backoff:
    """Wait `seconds`, having first given up the response of `discard` (its connection is kept if that is cheap)."""

    __slots__ = ("discard", "seconds")

    def __init__(self, seconds: float, discard: Outcome | None = None) -> None:
        self.seconds = seconds
        self.discard = discard


class Race:
    """Run `first`; if it hasn't ended after `delay` seconds, run what `second()` gives beside it.

    The first good outcome wins and the other flow is closed, so that its `finally` does its own accounting. `second`
    answers None when the hedge may not be sent after all. A driver without concurrency runs `first` alone.
    """

    __slots__ = ("delay", "first", "second")

    def __init__(self, first: Flow, delay: float, second: Callable[[], Flow | None]) -> None:
        self.first = first
        self.delay = delay
        self.second = second


Effect = Send | Backoff | Race
Flow = Generator[Effect, Any, Outcome]
"""A Send or a Race is answered with its Outcome, a Backoff with nothing."""
