from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from meshlib.policy import hashing
from meshlib.policy.balance import FailoverPicker, Picker
from meshlib.policy.hashing import HashPicker, Maglev, RingHash, hash_of, maglev_table, ring
from meshlib.state.endpoint import EndpointState

SIZES: dict[type[HashPicker], int] = {RingHash: 1024, Maglev: 65537}
KEYS = [hash_of(b"user-%d" % number) for number in range(10_000)]
both = pytest.mark.parametrize("kind", SIZES, ids=lambda kind: kind.name)


def endpoints(count: int) -> list[EndpointState]:
    return [EndpointState(f"10.0.{number >> 8}.{number & 255}", 80, 0.0) for number in range(count)]


def make(
    kind: type[HashPicker],
    states: Sequence[EndpointState],
    weights: Sequence[int] | None = None,
    healthy: Sequence[bool] | None = None,
    **more: object,
) -> HashPicker:
    fit = [True] * len(states) if healthy is None else healthy
    even = [1] * len(states) if weights is None else weights
    more = {"size": SIZES[kind], **more}
    return kind(states, even, fit, random.Random(7).random, **more)  # type: ignore[arg-type]


def homes(picker: Picker, now: float = 0.0, tried: Sequence[EndpointState] = ()) -> list[str]:
    """The address each key leads to."""
    found = (picker.pick(now, tried, key) for key in KEYS)
    return [state.address for state in found if state is not None]


@both
def test_a_key_leads_to_the_same_endpoint_in_every_process_and_whatever_order_the_registry_has(
    kind: type[HashPicker],
) -> None:
    states = endpoints(10)
    assert homes(make(kind, states)) == homes(make(kind, endpoints(10)[::-1]))


def test_the_hash_is_the_same_in_every_process() -> None:
    assert hash_of(b"jason") == 0x57F7A5C149FBE94B


@both
def test_keys_are_spread_over_all_endpoints(kind: type[HashPicker]) -> None:
    counts = Counter(homes(make(kind, endpoints(10))))
    assert len(counts) == 10
    assert max(counts.values()) <= 1.25 * len(KEYS) / 10


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 500])
def test_a_maglev_table_is_even_within_one_percent(count: int) -> None:
    owned = Counter(maglev_table([f"10.0.0.{number}:80" for number in range(count)], [1] * count, 65537))
    assert len(owned) == count
    mean = 65537 / count
    # Places are whole: of 500 endpoints each has 131 or 132.
    assert all(abs(owned[index] - mean) <= max(0.01 * mean, 1.0) for index in range(count))


def test_a_maglev_table_has_a_place_for_everybody() -> None:
    owned = Counter(maglev_table([f"10.0.0.{number}:80" for number in range(300)], [1] * 300, 53))
    assert set(owned) == set(range(300))


@both
@pytest.mark.parametrize("weights", [[1, 3], [1, 2, 3, 4], [10, 10, 80]])
def test_keys_are_spread_by_weight(kind: type[HashPicker], weights: list[int]) -> None:
    states = endpoints(len(weights))
    counts = Counter(homes(make(kind, states, weights)))
    for state, weight in zip(states, weights, strict=True):
        wanted = weight / sum(weights)
        assert counts[state.address] / len(KEYS) == pytest.approx(wanted, rel=0.2)


@pytest.mark.parametrize(
    ("kind", "count"), [(RingHash, 5), (RingHash, 10), (RingHash, 50), (Maglev, 5), (Maglev, 10), (Maglev, 20)]
)
def test_when_one_of_n_leaves_hardly_more_than_its_share_of_the_keys_moves(kind: type[HashPicker], count: int) -> None:
    states = endpoints(count)
    before = homes(make(kind, states))
    most = 1.2 * len(KEYS) / count
    moves = []
    for gone in range(0, count, max(1, count // 5)):
        after = homes(make(kind, states[:gone] + states[gone + 1 :]))
        moves.append(sum(old != new for old, new in zip(before, after, strict=True)))
    assert max(moves) <= most


def test_on_a_ring_only_the_keys_of_who_left_move() -> None:
    states = endpoints(10)
    before = homes(make(RingHash, states))
    after = homes(make(RingHash, states[1:]))
    assert all(old == new for old, new in zip(before, after, strict=True) if old != states[0].address)


@both
def test_the_keys_of_an_ejected_endpoint_go_to_many_others_and_come_back(kind: type[HashPicker]) -> None:
    states = endpoints(10)
    picker = make(kind, states)
    before = homes(picker)
    states[3].ejected_until = 30.0
    during = homes(picker, now=1.0)
    stood_in = {new for old, new in zip(before, during, strict=True) if old == states[3].address}
    assert states[3].address not in during
    assert len(stood_in) >= 5
    assert all(old == new for old, new in zip(before, during, strict=True) if old != states[3].address)
    assert homes(picker, now=31.0) == before


@both
def test_what_was_tried_is_walked_past_in_an_order_of_the_keys_own(kind: type[HashPicker]) -> None:
    states = endpoints(5)
    picker = make(kind, states)
    tried: list[EndpointState] = []
    for _ in states:
        state = picker.pick(0.0, tried, KEYS[0])
        assert state is not None
        assert state is picker.pick(0.0, tried, KEYS[0])
        tried.append(state)
    assert set(tried) == set(states)
    assert picker.pick(0.0, tried, KEYS[0]) is tried[0]


@both
def test_who_is_unhealthy_by_the_registrys_word_has_no_key(kind: type[HashPicker]) -> None:
    states = endpoints(4)
    picker = make(kind, states, healthy=[True, True, True, False])
    assert set(homes(picker)) == {state.address for state in states[:3]}


@both
def test_in_a_panic_a_key_stays_where_it_is(kind: type[HashPicker]) -> None:
    states = endpoints(4)
    picker = make(kind, states)
    before = homes(picker)
    for state in states[:3]:
        state.ejected_until = 30.0
    assert homes(picker, now=1.0) == before


@both
def test_when_every_endpoint_of_the_table_was_tried_another_is_found_all_the_same(kind: type[HashPicker]) -> None:
    states = endpoints(3)
    picker = make(kind, states, healthy=[True, True, False])
    states[0].ejected_until = states[1].ejected_until = 30.0
    assert picker.pick(1.0, states[:2], KEYS[0]) is states[2]


@both
def test_without_a_key_any_endpoint_will_do_and_without_endpoints_none(kind: type[HashPicker]) -> None:
    states = endpoints(4)
    picker = make(kind, states, [1, 1, 1, 5])
    counts = Counter(picker.pick(0.0, ()) for _ in range(4000))
    assert counts[states[3]] == pytest.approx(2500, rel=0.1)
    assert make(kind, []).pick(0.0, (), KEYS[0]) is None


@both
def test_a_table_is_kept_for_the_same_endpoints_and_made_anew_for_others(kind: type[HashPicker]) -> None:
    states = endpoints(4)
    last = make(kind, states).table
    assert make(kind, endpoints(4)[::-1], last=last).table is last
    for other in (
        make(kind, states[1:], last=last),
        make(kind, states, [1, 1, 1, 2], last=last),
        make(kind, states, healthy=[False, True, True, True], last=last),
        make(kind, states, size=1031, last=last),
    ):
        assert other.table is not last
    another = Maglev if kind is RingHash else RingHash
    assert make(another, states, last=last).table is not last


def test_a_tier_that_takes_over_hashes_too() -> None:
    here, there = endpoints(2), [EndpointState(f"10.1.0.{number}", 80, 0.0) for number in range(5)]
    tiers = {"here": make(Maglev, here), "there": make(Maglev, there)}
    picker = FailoverPicker(tiers, random.Random(7).random)
    for state in here:
        state.ejected_until = 30.0
    assert homes(picker, now=1.0) == homes(tiers["there"])


def test_a_ring_has_at_least_the_points_asked_for_and_never_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "MOST_POINTS", 10_000)
    addresses = [f"10.0.0.{number}:80" for number in range(3)]
    points, owners = ring(addresses, [1, 1, 1], 5_000)
    assert len(points) == len(owners) >= 5_000
    assert list(points) == sorted(points)
    points, _ = ring(addresses, [1, 2**32 - 1, 1], 1024)
    assert len(points) <= 10_000
