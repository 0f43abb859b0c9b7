"""Token buckets let through what they say and no more, whatever keys come, and outlive plans."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from meshlib.state.buckets import MOST_UNUSED, Buckets, BucketStore


def take(buckets: Buckets, key: object, now: float, *, size: float = 5, rate: float = 1.0) -> bool:
    bucket = buckets.of(key, size, now)
    if bucket.fill(rate, size, now) < 1.0:
        return False
    bucket.tokens -= 1.0
    return True


def test_a_bucket_begins_full_and_fills_at_its_rate_up_to_its_size() -> None:
    buckets = Buckets()
    assert [take(buckets, "a", 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert [take(buckets, "a", 2.0) for _ in range(3)] == [True, True, False]
    assert [take(buckets, "a", 1000.0) for _ in range(6)] == [True] * 5 + [False]


def test_an_instant_before_another_threads_fills_nothing_twice() -> None:
    buckets = Buckets()
    assert [take(buckets, "a", 10.0, size=1), take(buckets, "a", 11.0, size=1)] == [True, True]
    assert [take(buckets, "a", 10.0, size=1), take(buckets, "a", 11.0, size=1)] == [False, False]


@given(
    steps=st.lists(st.tuples(st.floats(-1.0, 3.0), st.integers(1, 8)), max_size=40),
    size=st.integers(1, 20),
    rate=st.floats(0.01, 100.0),
)
@example(steps=[(0.1, 3)] * 30, size=1, rate=10.0)
def test_no_more_than_the_burst_and_what_flowed_in_is_let_through(
    steps: list[tuple[float, int]], size: int, rate: float
) -> None:
    buckets, now, latest, let_in = Buckets(), 100.0, 100.0, 0
    buckets.of("a", size, now)
    for step, tries in steps:
        now += step
        latest = max(latest, now)
        for _ in range(tries):
            let_in += take(buckets, "a", now, size=size, rate=rate)
            assert buckets.of("a", size, now).tokens >= 0.0
    assert let_in <= size + rate * (latest - 100.0) + 1e-6


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0.0, 0.5)), max_size=150))
def test_rotating_keys_gets_no_more_than_as_many_keys_as_there_is_room_for(
    requests: list[tuple[str, float]],
) -> None:
    buckets, now, let_in = Buckets(most=3), 0.0, 0
    for key, step in requests:
        now += step
        let_in += take(buckets, key, now, size=2, rate=1.0)
    assert len(buckets) <= 3
    assert let_in <= 3 * (2 + now) + 1e-6


def test_being_forgotten_hands_out_no_fresh_tokens() -> None:
    buckets = Buckets(most=2)
    assert [take(buckets, "me", 0.0, size=3) for _ in range(3)] == [True] * 3
    others = [take(buckets, f"other {number}", 0.0, size=3) for number in range(10)]
    assert sum(others) == 3  # one full bucket was left beside mine
    assert not take(buckets, "me", 0.0, size=3)


def test_a_new_key_takes_the_bucket_that_was_unused_for_longest() -> None:
    buckets = Buckets(most=2)
    for now, key in enumerate(["old", "new", "old"]):
        take(buckets, key, float(now))
    kept = buckets.of("old", 5, 3.0)
    taken = buckets.of("new", 5, 3.0)
    buckets.of("old", 5, 3.0)
    assert buckets.of("another", 5, 3.0) is taken
    assert buckets.of("old", 5, 3.0) is kept


def test_another_size_keeps_the_share_that_was_left() -> None:
    buckets = Buckets()
    for _ in range(4):
        take(buckets, "a", 0.0, size=8, rate=0.001)
    assert buckets.of("a", 8, 0.0).fill(0.001, 80, 0.0) == 40.0
    assert buckets.of("a", 8, 0.0).fill(0.001, 4, 0.0) == 2.0


def test_the_next_plan_finds_the_buckets_as_they_were_left() -> None:
    store = BucketStore()
    first = store.adopt(["a", "b"])
    again = store.adopt(["b", "c"])
    assert again["b"] is first["b"]
    assert store.adopt(["a"])["a"] is first["a"], "a flapping registry hands out no fresh tokens"


def test_limits_that_are_gone_are_forgotten_in_the_end() -> None:
    store = BucketStore()
    first = store.adopt(["kept", "gone"])
    for number in itertools.islice(itertools.count(), MOST_UNUSED + 2):
        store.adopt(["kept", number])
    last = store.adopt(["kept", "gone"])
    assert last["kept"] is first["kept"]
    assert last["gone"] is not first["gone"]
