"""How long a connection to a peer may be used on: what it was secured by, against what is in force now."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from random import random
from typing import NamedTuple

__all__ = ["KEPT", "SPREAD", "Link", "Secured", "fit"]

KEPT, SPREAD = 0.8, 0.2
"""Shares of what is left of an old certificate: its connections go on for the first, and end at random within the
second (90 % ± 10 %), so that a fleet doesn't open all its connections anew at once."""


class Secured(NamedTuple):
    """How connections to one kind of peer are secured as of now.

    Attributes:
        context: for new connections; None: there is none, see `problem`.
        server_hostname: the name to send.
        problem: why there is no context.
        roots: the CAs trusted, each in PEM; None: files, the system's, or nobody is verified.
        expires: monotonic seconds at which our certificate ends; None: of no mesh identity.
    """

    context: ssl.SSLContext | None
    server_hostname: str
    problem: str = ""
    roots: frozenset[bytes] | None = None
    expires: float | None = None


def fit(made: Secured, made_at: float, share: float, current: Secured, now: float) -> bool:
    """Whether an open connection may be used on.

    Args:
        made: what it was opened with.
        made_at: monotonic seconds of its opening.
        share: of this connection, random in [0, 1): spreads the end of those opened together.
        current: what is in force for its peer.
        now: monotonic seconds.

    Returns:
        True while nothing has changed. Not once a root that was trusted then isn't any more: the peer may owe its place
        to it. With a renewed certificate of ours, until some time before the old one ends. What was secured by other
        files than now, at once no more.
    """
    if made is current:
        return True
    if current.context is None or made.roots is None or current.roots is None or made.expires is None:
        return False
    if not made.roots <= current.roots:
        return False
    return now < made_at + (made.expires - made_at) * (KEPT + SPREAD * share)


class Link:
    """What a connection remembers of how it was secured.

    Args:
        current: tells what is in force for its peer.
        now: monotonic seconds.
    """

    __slots__ = ("_current", "_made_at", "_share", "secured")

    def __init__(self, current: Callable[[], Secured], now: float) -> None:
        self._current = current
        self._made_at = now
        self._share = random()
        self.secured = current()

    def fit(self, now: float) -> bool:
        """Whether the connection may be used on; see `fit`."""
        current = self._current()
        return current is self.secured or fit(self.secured, self._made_at, self._share, current, now)
