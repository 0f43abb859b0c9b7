"""What is hashed of a request, so that calls alike go to one endpoint: DestinationRule's `consistentHash`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from meshlib.policy.balance import PICKERS, Picker
from meshlib.policy.hashing import Maglev, RingHash, hash_of
from meshlib.policy.match import HeadView
from meshlib.resources import ConsistentHashLB, MagLev
from meshlib.resources import RingHash as RingSettings

__all__ = ["Affinity", "HashKey", "MakePicker", "hash_key", "maker"]

Random = Callable[[], float]
MakePicker = Callable[..., Picker]
"""Makes a picker of states, weights, health, chance and the panic threshold, as `Picker` is made."""


class Affinity(NamedTuple):
    """The key of one request: its hash, None where it has nothing to hash, and a cookie to set in the response."""

    key: int | None
    set_cookie: bytes | None = None


class HashKey(NamedTuple):
    """What is hashed.

    Attributes:
        kind: of what follows.
        name: of the header in lower case, the cookie or the parameter; of `source`, the caller itself.
        ttl: seconds that a cookie made for who has none lasts, 0 for a session; None: none is made.
        path: of such a cookie, "" for none.
    """

    kind: Literal["header", "cookie", "query parameter", "source"]
    name: str
    ttl: float | None = None
    path: str = ""

    def value(self, head: HeadView) -> str | None:
        """What of a request is hashed, None where it has none of it."""
        match self.kind:
            case "header":
                return head.header(self.name.encode())
            case "cookie":
                return _cookie(head, self.name) or None
            case "query parameter":
                return head.query.get(self.name)
            case "source":
                return self.name

    def affinity(self, head: HeadView, random: Random) -> Affinity:
        """The key of a request; for a cookie with a `ttl` there always is one, made by `random` if need be."""
        value = self.value(head)
        if value is not None:
            return Affinity(hash_of(value.encode()))
        if self.kind != "cookie" or self.ttl is None:
            return Affinity(None)
        value = f"{int(random() * 2**53):014x}{int(random() * 2**53):014x}"
        age = f"; Max-Age={math.ceil(self.ttl)}" if self.ttl else ""
        path = f"; Path={self.path}" if self.path else ""
        return Affinity(hash_of(value.encode()), f"{self.name}={value}{age}{path}; HttpOnly".encode("ascii"))

    def __str__(self) -> str:
        return "this machine's name" if self.kind == "source" else f"the {self.kind} {self.name}"


def hash_key(settings: ConsistentHashLB, caller: str) -> HashKey:
    """The key of settings that have been validated; `caller` is hashed for `useSourceIp`."""
    if settings.http_header_name is not None:
        return HashKey("header", settings.http_header_name.lower())
    if settings.http_cookie is not None:
        cookie = settings.http_cookie
        return HashKey("cookie", cookie.name, cookie.ttl, cookie.path)
    if settings.http_query_parameter_name is not None:
        return HashKey("query parameter", settings.http_query_parameter_name)
    return HashKey("source", caller)


def maker(balancer: str, settings: ConsistentHashLB | None) -> MakePicker:
    """What makes pickers by the name of a balancer, with the size that its table has."""
    if settings is None or balancer in PICKERS:
        return PICKERS[balancer]
    if balancer == Maglev.name:
        return partial(Maglev, size=(settings.maglev or MagLev()).table_size)
    written = settings.ring_hash.minimum_ring_size if settings.ring_hash is not None else settings.minimum_ring_size
    return partial(RingHash, size=written or RingSettings().minimum_ring_size)


def _cookie(head: HeadView, name: str) -> str:
    """The value of the first cookie of that name, "" without one. There may be several headers."""
    wanted = name.encode()
    for header, value in head.raw_headers:
        if len(header) == 6 and header.lower() == b"cookie":
            for pair in value.split(b";"):
                key, _, text = pair.partition(b"=")
                if key.strip() == wanted:
                    return text.strip().strip(b'"').decode("utf-8", "replace")
    return ""
