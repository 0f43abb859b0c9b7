"""What a call asks of the world, and what the world answers.

The flow (`meshlib.call.flow`) is a generator: it yields an *effect* and is sent back what came of it. Nothing here
touches a socket, a clock or a task; the drivers do.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.state.endpoint import EndpointState, Ticket

__all__ = ["Backoff", "Effect", "Failure", "Flow", "Outcome", "Race", "Send"]


class Failure(enum.StrEnum):
    """Why an attempt brought no response head. The values are the words of `meshlib.errors` and of the logs."""

    CONNECT = "connect-failure"
    CONNECT_TIMEOUT = "connect-timeout"
    RESET = "reset"
    TIMEOUT = "per-try-timeout"
    PROTOCOL = "protocol-error"


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


class Outcome:
    """What came back from one attempt: a response head, or a failure.

    Attributes:
        status: the HTTP status, 0 when there is no response.
        failure: why there is no response, None when there is one.
        error: the exception that says more, for `__cause__`.
        sent: whether any byte of the request may have reached the endpoint.
        retry_after: the text of the `Retry-After` header, or None.
        response: the driver's own object for the response; opaque to the flow.
        ticket: released when the response's body ends; None when nothing was sent.
        good: whether the attempt counted as a success.
    """

    __slots__ = ("error", "failure", "good", "response", "retry_after", "sent", "status", "ticket")

    def __init__(
        self,
        status: int = 0,
        *,
        failure: Failure | None = None,
        error: BaseException | None = None,
        sent: bool = True,
        retry_after: str | None = None,
        response: Any = None,
    ) -> None:
        self.status = status
        self.failure = failure
        self.error = error
        self.sent = sent
        self.retry_after = retry_after
        self.response = response
        self.ticket: Ticket | None = None
        self.good = False


Effect = Send | Backoff | Race
Flow = Generator[Effect, Outcome | None, Outcome]
