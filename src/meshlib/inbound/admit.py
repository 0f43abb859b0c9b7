"""Whether a request may come in. Pure: what it needs of the connection and the configuration are arguments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from meshlib.identity.spiffe import SpiffeId
from meshlib.plan.inbound import Inbound
from meshlib.policy.intentions import RequestView, decide, source_of

__all__ = ["DENIED", "UNREADY", "Denial", "Peer", "admit", "restricts", "unready"]

DENIED = "RBAC"
"""The reason of a request that may not come in; Envoy's details say `rbac_access_denied`."""

UNREADY = "NOCONFIG"
"""The reason of a request that nobody can judge yet."""


class Peer(NamedTuple):
    """Who is at the other end of a connection.

    Attributes:
        id: the identity its certificate was verified for, None: it showed none.
        secure: whether the connection is TLS.
        known: whether the server lets its connections be looked at. Where it doesn't, `id` is None, and nobody guesses.
    """

    id: SpiffeId | None = None
    secure: bool = False
    known: bool = True


class Denial(NamedTuple):
    """The answer to a request that doesn't reach the application.

    Attributes:
        status: of the response.
        headers: of the response, all of them.
        body: an `application/problem+json` that tells the caller no more of the rules than it needs.
        reason: for the log, in words.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    reason: str


def restricts(inbound: Inbound) -> bool:
    """Whether there is anything a request may fail on."""
    return inbound.intentions is not None or inbound.mode == "STRICT" or "STRICT" in inbound.ports.values()


def admit(
    inbound: Inbound, peer: Peer, caller: SpiffeId | None, request: RequestView, port: int | None
) -> Denial | None:
    """None: the request may come in. First the connection is judged, then the caller.

    Args:
        inbound: what the plan says.
        peer: the other end of the connection.
        caller: for whom the request is made: `peer.id`, or whom a trusted hop forwards.
        request: what the intentions' permissions look at.
        port: it came to; None: a Unix socket.
    """
    if peer.id is None and inbound.mode_of(port) == "STRICT":
        came = "TLS without a certificate" if peer.secure else "plain text"
        detail = "PeerAuthentication says STRICT: callers need an identity and mTLS"
        return _denial(403, DENIED, detail, f"it is {came}, and PeerAuthentication says STRICT")
    if inbound.intentions is not None:
        decision = decide(inbound.intentions, source_of(caller.path) if caller is not None else None, request)
        if not decision.allowed:
            who = str(caller) if caller is not None else "a caller without an identity"
            return _denial(403, DENIED, f"{who} may not do this", decision.reason)
    return None


def unready() -> Denial:
    """The answer while there is no configuration to judge by, and callers are to be judged."""
    detail = "this service has no configuration yet that says who may call it"
    return _denial(503, UNREADY, detail, "there is no configuration yet, and none on disk")


_TITLES = {403: "Forbidden", 503: "Service Unavailable"}


def _denial(status: int, code: str, detail: str, reason: str) -> Denial:
    problem = {"type": "about:blank", "title": _TITLES[status], "status": status, "detail": detail}
    body = json.dumps(problem, separators=(",", ":")).encode()
    headers = (
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-meshlib-reason", code.encode()),
    )
    return Denial(status, headers, body, reason)
