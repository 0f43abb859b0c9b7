"""Consistent hashing: calls of one key go to one endpoint, and when endpoints change, few keys move.

Two algorithms as in Envoy, a ring and Maglev's table. They are made by pure functions of addresses, weights and a size,
with a hash that is the same in every process: callers that know the same endpoints agree about them.
"""

from __future__ import annotations

import bisect
import math
import struct
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from itertools import count

from meshlib.policy.balance import PANIC_THRESHOLD, Picker, Random
from meshlib.resources.hashing import is_prime
from meshlib.state.cluster import HashTable
from meshlib.state.endpoint import EndpointState

__all__ = ["HashPicker", "Maglev", "RingHash", "hash_of", "maglev_table", "ring"]

POINTS = 256
"""Points of each endpoint on a ring that its document leaves smaller: shares stay within 20 % or so of even."""

EVEN_RING = 65_536
"""Points up to which a ring grows by itself for that; a larger one takes long to build."""

MOST_POINTS = 2**20
"""Of one ring, however unlike the weights are."""

_BITS = 32
_SEVERAL = struct.Struct("<8Q")
_TWO = struct.Struct("<2Q")


def hash_of(text: bytes) -> int:
    """64 bits, evenly spread and the same in every process."""
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def ring(addresses: Sequence[str], weights: Sequence[int], size: int) -> tuple[array[int], array[int]]:
    """The points of a ring in ascending order, and the index of the address each belongs to.

    Args:
        addresses: distinct, at least one.
        weights: of each, ≥ 1; the lightest has one point at least, unless the ring would exceed a million.
        size: points the ring has at least, as far as weights divide it so (Envoy's `minimum_ring_size`).
    """
    size = max(size, min(POINTS * len(addresses), EVEN_RING))
    total = sum(weights)
    least = min(weights) / total
    scale = min(math.ceil(least * size) / least, MOST_POINTS)
    # Point and index in one number: it sorts faster than a pair, and is nothing for the garbage collector to look at.
    joined: list[int] = []
    wanted = 0.0
    for index, (address, weight) in enumerate(zip(addresses, weights, strict=True)):
        # A fraction of a point is carried over to the next address, so that the sum is right.
        wanted += scale * weight / total
        joined += [point << _BITS | index for point in _points(address, round(wanted) - len(joined))]
    joined.sort()
    return array("Q", [one >> _BITS for one in joined]), array("L", [one & (1 << _BITS) - 1 for one in joined])


def _points(address: str, number: int) -> list[int]:
    """Eight of each digest."""
    found: list[int] = []
    for part in range(-(-number // 8)):
        found += _SEVERAL.unpack(blake2b(b"%b %d" % (address.encode(), part)).digest())
    return found[: max(number, 0)]


def maglev_table(addresses: Sequence[str], weights: Sequence[int], size: int) -> array[int]:
    """Maglev's table: the index of the address that each place belongs to (Eisenbud et al., 2016; weights as Envoy).

    Args:
        addresses: distinct, at least one.
        weights: of each, ≥ 1.
        size: a prime; the table is larger where there are more addresses than that.
    """
    size = next(number for number in count(max(size, len(addresses))) if is_prime(number))
    starts, steps = [], []
    for address in addresses:
        start, step = _TWO.unpack(blake2b(address.encode(), digest_size=16).digest())
        starts.append(start % size)
        steps.append(step % (size - 1) + 1)
    table = array("l", [-1]) * size
    top = max(weights)
    even = min(weights) == top
    turns = list(weights)
    left = size
    for turn in count(1):
        for index in range(len(starts)):
            if not even:
                if turn * weights[index] < turns[index]:
                    continue
                turns[index] += top
            place, step = starts[index], steps[index]
            while table[place] >= 0:
                place += step
                if place >= size:
                    place -= size
            table[place] = index
            starts[index] = place
            left -= 1
            if not left:
                return table
    raise AssertionError("unreachable: every turn places something")


class HashPicker(Picker, ABC):
    """The common part of both: a key's place, and from there on past whom the call may not go to.

    Without a key it draws as RANDOM does, which is what Envoy does with a request that has nothing to hash.

    Args:
        states, weights, healthy, random, panic: as for `Picker`. Only endpoints that may be called by the registry's
            word are in the table, so that an ejection, which is short, moves its endpoint's keys only, and back.
        size: of the ring or the table.
        last: the table in use so far, kept where it is for the same endpoints.
    """

    __slots__ = ("_ordered", "table")

    def __init__(
        self,
        states: Sequence[EndpointState],
        weights: Sequence[int],
        healthy: Sequence[bool],
        random: Random,
        panic: float = PANIC_THRESHOLD,
        *,
        size: int,
        last: HashTable | None = None,
    ) -> None:
        super().__init__(states, weights, healthy, random, panic)
        # In the order of addresses, not of the registry, so that all callers have the same table.
        self._ordered = sorted(self._usable, key=lambda state: state.address)
        addresses = tuple(state.address for state in self._ordered)
        shares = tuple(self.weights[state] for state in self._ordered)
        made_of = (self.name, size, addresses, shares)
        self.table = last if last is not None and last.made_of == made_of else self._make(made_of, size)

    @abstractmethod
    def _make(self, made_of: tuple[object, ...], size: int) -> HashTable:
        """The table of the endpoints in `_ordered`."""

    @abstractmethod
    def _place(self, key: int) -> int:
        """The place of a key in the table's owners."""

    def _parts(self) -> tuple[list[str], list[int]]:
        return [state.address for state in self._ordered], [self.weights[state] for state in self._ordered]

    def pick(self, now: float, tried: Sequence[EndpointState], key: int | None = None) -> EndpointState | None:
        """The endpoint of `key`, or the next one along that may be called; each key has its own order of them."""
        if key is None or not self._ordered:
            return super().pick(now, tried)
        place = self._place(key)
        state = self._ordered[self.table.owners[place]]
        if state.ejected_until <= now and (not tried or state not in tried):
            return state
        return self._walk(place, now, tried)

    def _walk(self, place: int, now: float, tried: Sequence[EndpointState]) -> EndpointState:
        fresh = self._fresh(now, tried)
        allowed = frozenset(fresh)
        owners, ordered = self.table.owners, self._ordered
        passed: set[int] = set()
        for at in range(len(owners)):
            owner = owners[(place + at) % len(owners)]
            if owner not in passed:
                if ordered[owner] in allowed:
                    return ordered[owner]
                passed.add(owner)
                if len(passed) == len(ordered):
                    break
        # Whom it may call is unhealthy by the registry's word, and so in no table.
        return self._weighted(fresh)

    def _choose_carefully(self, now: float, tried: Sequence[EndpointState]) -> EndpointState:
        return self._weighted(self._fresh(now, tried))


class RingHash(HashPicker):
    """The next point on a ring (Envoy's RING_HASH). O(log n)."""

    __slots__ = ()

    name = "RING_HASH"

    def _make(self, made_of: tuple[object, ...], size: int) -> HashTable:
        addresses, weights = self._parts()
        points, owners = ring(addresses, weights, size) if addresses else (array("Q"), array("L"))
        return HashTable(made_of, points, owners)

    def _place(self, key: int) -> int:
        points = self.table.points
        place = bisect.bisect_left(points, key)
        return place if place < len(points) else 0


class Maglev(HashPicker):
    """A place in Maglev's table. O(1), and evener than a ring; a few more keys move."""

    __slots__ = ()

    name = "MAGLEV"

    def _make(self, made_of: tuple[object, ...], size: int) -> HashTable:
        addresses, weights = self._parts()
        return HashTable(made_of, array("Q"), maglev_table(addresses, weights, size) if addresses else array("l"))

    def _place(self, key: int) -> int:
        return key % len(self.table.owners)
