from __future__ import annotations

import pytest

from meshlib.state.adaptive import BASE_SAMPLES, BASE_WANTED, FIRST_PROBE, SAMPLES, AdaptiveBounds, AdaptiveLimit

BOUNDS = AdaptiveBounds(2, 1000, 20)


class Measured:
    """A limit, and the time that passes as it is given samples."""

    def __init__(self, bounds: AdaptiveBounds = BOUNDS) -> None:
        self.limit = AdaptiveLimit()
        self.bounds = bounds
        self.now = 0.0

    @property
    def value(self) -> int:
        return self.limit.limit(self.bounds)

    def window(self, seconds: float, inside: int | None = None, count: int = SAMPLES) -> None:
        """As many samples as one look takes, and no time for a new base."""
        for _ in range(count):
            self.now += 0.11 / SAMPLES
            self.limit.sample(seconds, self.value if inside is None else inside, self.now, self.bounds)

    def base(self, seconds: float) -> None:
        self.window(seconds, 1, BASE_WANTED)


def test_it_begins_where_it_is_told_to_and_learns_the_base() -> None:
    measured = Measured()
    assert measured.value == 20
    measured.base(0.05)
    assert measured.limit.base == 0.05
    assert measured.value == 20


def test_it_rises_while_it_is_used_up_and_latency_stays() -> None:
    measured = Measured()
    measured.base(0.05)
    measured.window(0.06)
    assert measured.value == 22
    measured.window(0.06)
    assert measured.value == 24


def test_it_does_not_rise_while_it_is_not_used_up() -> None:
    measured = Measured()
    measured.base(0.05)
    measured.window(0.05, 10)
    assert measured.value == 20


def test_it_falls_in_proportion_to_latency_and_not_too_fast() -> None:
    measured = Measured()
    measured.base(0.05)
    measured.window(0.085)
    assert measured.value == 16  # 20 × 1.4 × 0.05 / 0.085
    measured.window(5.0)
    assert measured.value == 11  # 0.7 of it is left


def test_it_stays_within_its_bounds() -> None:
    measured = Measured(AdaptiveBounds(10, 23, 20))
    measured.base(0.05)
    for _ in range(3):
        measured.window(0.05)
    assert measured.value == 23
    measured = Measured(AdaptiveBounds(10, 23, 20))
    measured.base(0.05)
    for _ in range(3):
        measured.window(9.0)
    assert measured.value == 10


def test_new_bounds_hold_at_once() -> None:
    measured = Measured()
    measured.base(0.05)
    measured.window(0.05)
    assert measured.limit.limit(AdaptiveBounds(1, 5, 3)) == 5


def test_few_requests_that_take_long_do_not_lower_it() -> None:
    measured = Measured()
    measured.base(0.05)
    for _ in range(SAMPLES):
        measured.now += 0.11 / SAMPLES
        measured.limit.sample(60.0 if measured.now % 0.02 < 0.004 else 0.05, 20, measured.now, BOUNDS)
    assert measured.value == 22


def test_the_base_is_measured_again_with_a_quarter_of_the_limit() -> None:
    measured = Measured()
    measured.base(0.05)
    measured.now += FIRST_PROBE
    measured.window(0.05, 20, 1)
    assert measured.value == 5
    assert measured.limit.limit(BOUNDS, lowered=False) == 20
    measured.window(9.0, 20)  # they began before
    assert measured.value == 5
    measured.window(0.07, 5, BASE_SAMPLES)
    assert measured.value == 20
    assert measured.limit.base == pytest.approx(0.06)  # half of the new, half of the old


def test_the_base_takes_as_long_as_it_costs_nothing() -> None:
    measured = Measured()
    measured.window(0.05, 19, BASE_WANTED - 1)
    assert measured.limit.base is None
    measured.window(0.05, 19, 1)
    assert measured.limit.base == 0.05
    crowded = Measured()
    crowded.window(0.05, 20, BASE_SAMPLES)
    assert crowded.limit.base == 0.05


def test_a_limit_that_can_not_fall_further_has_measured_the_base() -> None:
    measured = Measured(AdaptiveBounds(2, 1000, 3))
    measured.base(0.01)  # too little, by chance or because all has become slower
    measured.window(0.05)
    assert measured.value == 2
    for _ in range(4):
        measured.window(0.05, 2)
    assert measured.limit.base is not None
    assert measured.limit.base > 0.05 / 1.4
    assert measured.value > 2


def test_the_next_measurements_come_at_doubling_distances() -> None:
    measured = Measured()
    measured.base(0.05)
    for distance in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0):
        begun = measured.now
        measured.now = begun + distance - 0.01
        measured.limit.sample(0.05, 20, measured.now, BOUNDS)
        assert measured.value == 20
        measured.now = begun + distance + 0.01
        measured.limit.sample(0.05, 20, measured.now, BOUNDS)
        assert measured.value == 5
        measured.base(0.05)
        assert measured.value == 20
