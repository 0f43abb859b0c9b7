"""Token buckets by key, no more of them than a bound; they survive a plan swap.

A bucket knows how many tokens it holds, never how many it should: rate and size are the plan's, so a limit whose
numbers change keeps what was spent of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from threading import Lock

__all__ = ["MOST_KEYS", "Bucket", "BucketStore", "Buckets"]

MOST_KEYS = 10_000
"""Buckets of one limit, some 3 MB; the one that was unused for longest is taken for a new key then."""

MOST_UNUSED = 32
"""Limits that no plan has any more, but whose buckets are kept: a flapping registry hands out no fresh tokens."""


class Bucket:
    """Tokens, of a bucket that holds `size` of them, at the instant `at`. Not thread-safe: see `BucketStore.lock`."""

    __slots__ = ("at", "size", "tokens")

    def __init__(self, size: float, now: float) -> None:
        self.size = size
        self.tokens = float(size)
        self.at = now

    def fill(self, rate: float, size: float, now: float) -> float:
        """What it holds at `now`.

        Args:
            rate: tokens that flow in each second.
            size: the most it holds; another one than before keeps the share that is left.
            now: monotonic seconds. A thread may come with an instant it read before another's.
        """
        tokens = self.tokens
        if size != self.size:
            tokens *= size / self.size
            self.size = size
        if now > self.at:
            tokens += (now - self.at) * rate
            self.at = now
        if tokens > size:
            tokens = float(size)
        self.tokens = tokens
        return tokens


class Buckets:
    """The buckets of one limit, the least recently used first.

    A key that isn't known gets a full bucket, as long as there is room. Then it takes over the bucket that was unused
    for longest, with what that holds: whoever comes with a new key each time, or makes himself forgotten with such
    keys, gets no more in all than `most` keys would. Honest callers hardly notice, for what was unused for longest has
    been filled for longest.

    Args:
        most: buckets.
    """

    __slots__ = ("_by_key", "_most")

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._by_key: OrderedDict[Hashable, Bucket] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._by_key)

    def of(self, key: Hashable, size: float, now: float) -> Bucket:
        """The bucket of a key; a new one is full, and holds `size` tokens."""
        by_key = self._by_key
        bucket = by_key.get(key)
        if bucket is not None:
            by_key.move_to_end(key)
            return bucket
        bucket = Bucket(size, now) if len(by_key) < self._most else by_key.popitem(last=False)[1]
        by_key[key] = bucket
        return bucket


class BucketStore:
    """The buckets of each limit of the process.

    Attributes:
        lock: held while buckets are looked at and drawn from: one for all, as a request draws from several at once.
    """

    __slots__ = ("_limits", "lock")

    def __init__(self) -> None:
        self.lock = Lock()
        self._limits: OrderedDict[Hashable, Buckets] = OrderedDict()

    def adopt(self, limits: Iterable[Hashable]) -> dict[Hashable, Buckets]:
        """The buckets of each of a new plan's limits, as they were left; those that had none begin.

        Args:
            limits: what tells them apart, from one plan to the next.
        """
        adopted = {limit: self._limits.pop(limit) if limit in self._limits else Buckets() for limit in limits}
        while len(self._limits) > MOST_UNUSED:
            self._limits.popitem(last=False)
        self._limits.update(adopted)
        return adopted
