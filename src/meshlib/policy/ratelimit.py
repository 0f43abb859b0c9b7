"""Rate limits, compiled: whom each holds for, whose bucket it draws from, and what is left there.

A request must find a token in every bucket it is held to, or it draws from none: being refused by one limit costs
nothing of another.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from meshlib.policy.arriving import Arriving
from meshlib.policy.claims import claim_of
from meshlib.policy.match import Match
from meshlib.state.buckets import Bucket, Buckets, BucketStore

__all__ = [
    "LONGEST_VALUE",
    "Draw",
    "Key",
    "Level",
    "Limit",
    "RateLimits",
    "Read",
    "Spending",
    "claim",
    "header",
    "plain",
    "principal",
    "remote_address",
]

LONGEST_VALUE = 64
"""Characters of what callers are told apart by; of what is longer its hash counts."""

Value = str | bytes | None
Key = tuple[Value, ...]
Read = Callable[[Arriving], Value]
"""One of the values that callers are told apart by. None: the request has none."""


Level = tuple[bool, float]
"""How a bucket stands: whether it had a token for the request, and the tokens it holds now."""


class Spending(NamedTuple):
    """One request to be counted on a limit that processes share.

    Attributes:
        key: of the bucket.
        size: tokens it holds at most.
        rate: tokens that flow in each second.
        enforced: whether a lack of tokens keeps the request out, and so from the other buckets.
    """

    key: str
    size: int
    rate: float
    enforced: bool = True


@dataclass(frozen=True, slots=True)
class Limit:
    """One rate limit.

    Attributes:
        name: by which it is reported.
        size: of a bucket: the burst.
        rate: tokens that flow in each second.
        matches: one of which must hold; empty: it holds for every request.
        by: what each bucket is of.
        says: numbers and keys in words, for the log.
        enforced: False: counted, and nobody is refused.
        refuses_uncounted: whether nobody comes in while it can't be counted.
        buckets: of this process; None: they are shared, and elsewhere.
    """

    name: str
    size: int
    rate: float
    matches: tuple[Match, ...]
    by: tuple[Read, ...]
    says: str
    enforced: bool
    refuses_uncounted: bool
    buckets: Buckets | None

    def holds(self, arriving: Arriving) -> bool:
        """Whether a request is held to it."""
        for match in self.matches:
            if match.holds(arriving):
                return True
        return not self.matches

    def key(self, arriving: Arriving) -> Key:
        """Whose bucket a request draws from. Who lacks a value shares one with all who lack it and have the others."""
        return tuple([read(arriving) for read in self.by])

    def spending(self, arriving: Arriving) -> Spending:
        """What to count on a shared one. Values may be secrets: only their hash leaves the process."""
        key = self.key(arriving)
        whose = hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest() if key else "all"
        return Spending(f"{self.name}:{whose}", self.size, self.rate, self.enforced)

    def wait(self, tokens: float) -> float:
        """Seconds until there is a token for a request, when there are `tokens`."""
        return (1.0 - tokens) / self.rate if tokens < 1.0 else 0.0

    def full(self, tokens: float) -> float:
        """Seconds until there is nothing missing, when there are `tokens`."""
        return (self.size - tokens) / self.rate if tokens < self.size else 0.0


Draw = tuple[Limit, Level, Bucket]
"""What a request found in one bucket of this process."""


class RateLimits(NamedTuple):
    """Every limit that holds for one process.

    Attributes:
        local: with buckets of its own.
        shared: with other processes.
        store: of the local buckets.
    """

    local: tuple[Limit, ...]
    shared: tuple[Limit, ...]
    store: BucketStore

    def draw(self, arriving: Arriving, now: float) -> list[Draw]:
        """Take a token from each local bucket the request is held to; from none if an enforced limit's has none.

        Args:
            arriving: the request.
            now: monotonic seconds.
        """
        held = [
            (limit, limit.key(arriving) if limit.by else ())
            for limit in self.local
            if not limit.matches or limit.holds(arriving)
        ]
        found: list[Draw] = []
        allowed = True
        with self.store.lock:
            for limit, key in held:
                assert limit.buckets is not None
                bucket = limit.buckets.of(key, limit.size, now)
                tokens = bucket.fill(limit.rate, limit.size, now)
                if tokens >= 1.0:
                    found.append((limit, (True, tokens - 1.0), bucket))
                else:
                    found.append((limit, (False, tokens), bucket))
                    allowed = allowed and not limit.enforced
            if allowed:
                for _, (enough, _), bucket in found:
                    if enough:
                        bucket.tokens -= 1.0
        return found

    def give_back(self, draws: Sequence[Draw]) -> None:
        """Put back what a request took that is refused after all."""
        with self.store.lock:
            for _, (enough, _), bucket in draws:
                if enough:
                    bucket.tokens = min(bucket.tokens + 1.0, bucket.size)


def plain(value: str | None) -> Value:
    """A value that callers are told apart by: bounded, None for an empty one."""
    if not value:
        return None
    return value if len(value) <= LONGEST_VALUE else hashlib.blake2b(value.encode(errors="replace")).digest()


def principal(arriving: Arriving) -> Value:
    """The caller's verified identity."""
    return plain(arriving.principal)


def remote_address(arriving: Arriving) -> Value:
    """The caller's IPv4 address, or the /64 of its IPv6 address: whoever has one of its addresses has them all."""
    address = arriving.remote_ip
    if ":" not in address:
        return plain(address)
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return plain(address)
    return str(found.ipv4_mapped or ipaddress.IPv6Address(int(found) >> 64 << 64))


def header(name: str) -> Read:
    """The value of a request header.

    Who sends several counts as one who sends none: the application may take any of them, and who makes up the others
    would have a full bucket each time.
    """
    raw = name.lower().encode("latin-1", "replace")

    def read(arriving: Arriving) -> Value:
        values = arriving.values(raw)
        return plain(values[0].decode("utf-8", "replace")) if len(values) == 1 else None

    return read


def claim(name: str) -> Read:
    """A claim of the verified token, `a.b`: `b` within `a`, unless there is a claim of that very name."""

    def read(arriving: Arriving) -> Value:
        return None if arriving.claims is None else _text(claim_of(arriving.claims, name))

    return read


def _text(value: object) -> Value:
    if value is None or isinstance(value, str):
        return plain(value)
    return plain(json.dumps(value, sort_keys=True, default=str))
