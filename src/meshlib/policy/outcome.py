"""What came back from one attempt, in the terms that decisions need."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

from meshlib.state.endpoint import Ticket

__all__ = ["Failure", "LocalReply", "Outcome"]


class Failure(enum.StrEnum):
    """Why an attempt brought no response head. The values are the words of evidence and of the logs.

    The second group is decided here, before anything is sent.
    """

    CONNECT = "connect-failure"
    CONNECT_TIMEOUT = "connect-timeout"
    TLS = "tls-failure"
    RESET = "reset"
    TIMEOUT = "per-try-timeout"
    PROTOCOL = "protocol-error"

    NO_ENDPOINTS = "no-endpoints"
    CIRCUIT_OPEN = "circuit-open"
    OVERFLOW = "overflow"
    DEADLINE = "deadline"


class Outcome:
    """What came back from one attempt: a response head, or a failure.

    Attributes:
        status: the HTTP status, 0 when there is no response.
        failure: why there is no response, None when there is one.
        error: the exception that says more, for `__cause__`.
        sent: whether any byte of the request may have reached the endpoint.
        retry_after: seconds the endpoint asked us to wait; negative: it may not be tried again; None: it said nothing.
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
        retry_after: float | None = None,
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


class LocalReply:
    """A response that no endpoint gave: a redirect, a direct response, an injected abort."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Sequence[tuple[bytes, bytes]] = (), body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body
