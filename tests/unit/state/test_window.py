from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshlib.state.window import Window


def test_what_was_added_is_counted() -> None:
    window = Window(10.0)
    window.add(0.0, 1, 2)
    window.add(0.5, 3, 4)
    assert (window.first, window.second) == (4, 6)


def test_a_bucket_is_dropped_when_the_window_has_passed_it() -> None:
    window = Window(10.0)
    window.add(0.5, 1, 1)
    window.add(5.5, 2, 2)
    window.roll(9.9)
    assert window.first == 3
    window.roll(10.0)
    assert (window.first, window.second) == (2, 2)


def test_everything_is_dropped_after_a_long_pause() -> None:
    window = Window(10.0)
    window.add(3.0, 1, 1)
    window.roll(1000.0)
    assert (window.first, window.second) == (0, 0)


def test_a_bucket_is_used_again_in_the_next_turn() -> None:
    window = Window(10.0)
    window.add(3.0, 1, 0)
    window.add(13.0, 5, 0)
    assert window.first == 5


def test_an_instant_from_before_the_last_one_forgets_nothing() -> None:
    window = Window(10.0)
    window.add(7.1, 4, 0)
    window.add(6.9, 1, 0)
    assert window.first == 5


@given(
    st.lists(st.tuples(st.floats(0, 4, allow_nan=False), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60)
)
def test_the_counts_are_those_of_the_last_ten_buckets(steps: list[tuple[float, int, int]]) -> None:
    window = Window(5.0)
    now = 0.0
    seen: list[tuple[int, int, int]] = []
    for wait, first, second in steps:
        now += wait
        window.add(now, first, second)
        epoch = int(now / 0.5)
        seen.append((epoch, first, second))
        inside = [entry for entry in seen if entry[0] > epoch - 10]
        assert window.first == sum(entry[1] for entry in inside)
        assert window.second == sum(entry[2] for entry in inside)
