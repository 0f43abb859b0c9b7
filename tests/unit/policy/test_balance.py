from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from meshlib.policy.balance import (
    PICKERS,
    FailoverPicker,
    LeastRequest,
    PeakEwma,
    Picker,
    RandomPicker,
    RoundRobin,
)
from meshlib.state.endpoint import EndpointState, Verdict

DRAWS = 10_000
every = pytest.mark.parametrize("kind", PICKERS.values(), ids=lambda kind: kind.name)


def make(
    kind: type[Picker],
    weights: Sequence[int],
    healthy: Sequence[bool] | None = None,
    draw: Callable[[], float] | None = None,
    **panic: float,
) -> Picker:
    states = [EndpointState("10.0.0.1", port, 0.0) for port in range(len(weights))]
    fit = [True] * len(weights) if healthy is None else healthy
    return kind(states, weights, fit, draw or random.Random(7).random, **panic)


def shares(picker: Picker, tried: Sequence[EndpointState] = (), draws: int = DRAWS, now: float = 0.0) -> list[float]:
    counts = Counter(picker.pick(now, tried) for _ in range(draws))
    return [counts[state] / draws for state in picker.states]


def within_three_sigma(found: list[float], expected: list[float], draws: int = DRAWS) -> bool:
    return all(
        abs(share - wanted) <= 3 * math.sqrt(wanted * (1 - wanted) / draws) + 1e-9
        for share, wanted in zip(found, expected, strict=True)
    )


@every
@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_equal_endpoints_get_equal_shares(kind: type[Picker], count: int) -> None:
    assert within_three_sigma(shares(make(kind, [1] * count)), [1 / count] * count)


@pytest.mark.parametrize("kind", [RandomPicker, RoundRobin, LeastRequest])
@pytest.mark.parametrize("weights", [[1, 3], [90, 10], [1, 2, 3, 4], [65535, 1, 1]])
def test_idle_endpoints_get_shares_by_weight(kind: type[Picker], weights: list[int]) -> None:
    wanted = [weight / sum(weights) for weight in weights]
    assert within_three_sigma(shares(make(kind, weights)), wanted)


def test_round_robin_keeps_the_shares_within_every_turn() -> None:
    picker = make(RoundRobin, [4, 1, 2])
    for _ in range(50):
        assert shares(picker, draws=7) == [4 / 7, 1 / 7, 2 / 7]


def test_round_robin_spreads_the_heavy_over_the_turn() -> None:
    picker = make(RoundRobin, [3, 3, 1])
    order = [picker.pick(0.0, ()) for _ in range(70)]
    assert all(len(set(order[index : index + 3])) > 1 for index in range(68))


def test_round_robin_goes_one_after_another() -> None:
    picker = make(RoundRobin, [5, 5, 5])
    first = [picker.pick(0.0, ()) for _ in range(3)]
    assert set(first) == set(picker.states)
    assert [picker.pick(0.0, ()) for _ in range(6)] == first * 2


def test_least_request_prefers_the_less_busy_of_two() -> None:
    picker = make(LeastRequest, [1, 1])
    picker.states[0].begin(0.0)
    assert shares(picker, draws=100) == [0.0, 1.0]


def test_least_request_of_ten_shuns_only_the_busiest() -> None:
    picker = make(LeastRequest, [1] * 10)
    picker.states[0].begin(0.0)
    found = shares(picker)
    assert found[0] == 0.0
    assert within_three_sigma(found[1:], [1 / 9] * 9)


@pytest.mark.parametrize("kind", [LeastRequest, PeakEwma])
def test_busyness_is_measured_by_weight(kind: type[Picker]) -> None:
    picker = make(kind, [1, 3])
    light, heavy = picker.states
    light.begin(0.0)
    for _ in range(2):
        heavy.begin(0.0)
    assert picker.cost(heavy, 0.0) < picker.cost(light, 0.0)
    for _ in range(2):
        heavy.begin(0.0)
    assert picker.cost(heavy, 0.0) > picker.cost(light, 0.0)


def observe(state: EndpointState, seconds: float, verdict: Verdict = Verdict.SUCCESS) -> None:
    ticket = state.begin(0.0)
    ticket.settle(verdict, seconds)
    ticket.release()


def test_peak_ewma_flees_what_is_slow() -> None:
    picker = make(PeakEwma, [1, 1])
    observe(picker.states[0], 1.0)
    assert shares(picker, now=1.0, draws=100) == [0.0, 1.0]


def test_peak_ewma_flees_what_fails_fast() -> None:
    picker = make(PeakEwma, [1, 1])
    observe(picker.states[0], 0.001, Verdict.FAILURE)
    assert shares(picker, now=0.001, draws=100) == [0.0, 1.0]


def test_peak_ewma_weighs_latency_by_what_is_in_flight() -> None:
    picker = make(PeakEwma, [1, 1])
    fast, slow = picker.states
    observe(slow, 0.075)
    for _ in range(2):
        fast.begin(0.0)
    now = 0.075
    assert picker.cost(slow, now) < picker.cost(fast, now)  # 75 ms · 1 against 30 ms · 3


def test_peak_ewma_is_the_product_of_latency_and_load_when_weights_are_equal() -> None:
    for weight in (1, 100):
        picker = make(PeakEwma, [weight, weight])
        picker.states[0].begin(0.0)
        assert picker.cost(picker.states[0], 0.0) == pytest.approx(0.030 * 2)


def test_peak_ewma_does_not_starve_the_light_one_of_two_that_are_equally_fast() -> None:
    picker = make(PeakEwma, [1, 3])
    noise = random.Random(3)
    served: Counter[EndpointState] = Counter()
    for turn in range(2000):
        now = turn * 0.01
        state = picker.pick(now, ())
        assert state is not None
        served[state] += 1
        ticket = state.begin(now)
        ticket.settle(Verdict.SUCCESS, now + noise.uniform(0.004, 0.006))
        ticket.release()
    assert 0.15 < served[picker.states[0]] / 2000 < 0.40


@every
def test_what_was_tried_is_avoided(kind: type[Picker]) -> None:
    picker = make(kind, [1, 1, 1])
    found = shares(picker, tried=picker.states[:1])
    assert found[0] == 0.0
    assert min(found[1:]) > 0.4


@every
def test_when_all_were_tried_they_are_tried_again(kind: type[Picker]) -> None:
    picker = make(kind, [1, 1, 1])
    assert min(shares(picker, tried=picker.states)) > 0.2


@every
def test_the_ejected_is_skipped_until_its_time_has_passed(kind: type[Picker]) -> None:
    picker = make(kind, [1, 1, 1])
    picker.states[0].ejected_until = 30.0
    assert shares(picker, now=29.9)[0] == 0.0
    assert shares(picker, now=30.0)[0] > 0.2


@every
def test_the_ejected_is_not_the_way_out_when_the_others_were_tried(kind: type[Picker]) -> None:
    picker = make(kind, [1, 1, 1])
    picker.states[0].ejected_until = 30.0
    assert shares(picker, tried=picker.states[1:])[0] == 0.0


@every
def test_what_the_registry_calls_unhealthy_gets_nothing(kind: type[Picker]) -> None:
    picker = make(kind, [1, 1, 1], healthy=[True, False, True])
    assert shares(picker)[1] == 0.0


@every
def test_with_less_than_half_healthy_health_is_ignored(kind: type[Picker]) -> None:
    picker = make(kind, [1, 1, 1], healthy=[True, False, False])
    assert picker.panicking(0.0)
    assert min(shares(picker)) > 0.3


@every
def test_with_exactly_half_healthy_it_is_not(kind: type[Picker]) -> None:
    picker = make(kind, [1, 1], healthy=[True, False])
    assert not picker.panicking(0.0)
    assert shares(picker) == [1.0, 0.0]


@every
def test_without_a_panic_threshold_one_healthy_endpoint_carries_all(kind: type[Picker]) -> None:
    picker = make(kind, [1] * 10, healthy=[True] + [False] * 9, panic=0.0)
    assert shares(picker)[0] == 1.0


@every
def test_in_a_panic_the_ejected_are_called_too(kind: type[Picker]) -> None:
    picker = make(kind, [1] * 4)
    for state in picker.states[:3]:
        state.ejected_until = 30.0
    assert picker.panicking(0.0)
    assert min(shares(picker)) > 0.1


@every
@pytest.mark.parametrize("panic", [50.0, 0.0])
def test_when_all_are_ejected_all_are_called(kind: type[Picker], panic: float) -> None:
    picker = make(kind, [1, 1, 1], panic=panic)
    for state in picker.states:
        state.ejected_until = 30.0
    assert min(shares(picker)) > 0.2


@every
@pytest.mark.parametrize("panic", [50.0, 0.0])
def test_when_none_is_healthy_all_are_called(kind: type[Picker], panic: float) -> None:
    assert min(shares(make(kind, [1, 1], healthy=[False, False], panic=panic))) > 0.4


@every
def test_one_endpoint_is_picked_whatever_happened_to_it(kind: type[Picker]) -> None:
    picker = make(kind, [1])
    picker.states[0].ejected_until = 30.0
    assert picker.pick(0.0, picker.states) is picker.states[0]


@every
def test_without_endpoints_there_is_nothing_to_pick(kind: type[Picker]) -> None:
    assert make(kind, []).pick(0.0, ()) is None


@every
def test_the_largest_number_random_can_give_is_no_trouble(kind: type[Picker]) -> None:
    largest = math.nextafter(1.0, 0.0)
    for weights in ([1, 1, 1], [1, 2, 3], [65535, 65534, 7]):
        picker = make(kind, weights, draw=lambda: largest)
        assert picker.pick(0.0, ()) in picker.states
        assert picker.pick(0.0, picker.states[:1]) in picker.states


@every
def test_the_number_of_looks_does_not_grow_with_the_number_of_endpoints(kind: type[Picker]) -> None:
    draws = 0

    def draw() -> float:
        nonlocal draws
        draws += 1
        return 0.5

    picker = make(kind, [1] * 5000, draw=draw)
    draws = 0
    picker.pick(0.0, ())
    assert draws <= 2


def tiered(*healthy: Sequence[bool]) -> FailoverPicker:
    made = {str(number): make(LeastRequest, [1] * len(fit), fit, panic=0.0) for number, fit in enumerate(healthy)}
    return FailoverPicker(made, random.Random(7).random)


@pytest.mark.parametrize(
    ("healthy", "used"),
    [
        ([[True], [True]], "0"),
        ([[False, True], [True]], "0"),
        ([[False], [True]], "1"),
        ([[], [True]], "1"),
        ([[False], [False], [True]], "2"),
        ([[False], [False]], "0"),
        ([[], [False]], "1"),
        ([[], []], "0"),
    ],
)
def test_the_first_tier_with_somebody_available_is_used(healthy: list[list[bool]], used: str) -> None:
    picker = tiered(*healthy)
    assert picker.in_use(0.0) == used
    assert picker.pick(0.0, ()) in (*picker.tiers[used].states, None)


def test_a_tier_of_which_all_are_ejected_is_left_until_one_is_back() -> None:
    picker = tiered([True, True], [True])
    for state in picker.tiers["0"].states:
        state.ejected_until = 10.0
    assert (picker.in_use(9.0), picker.in_use(10.0)) == ("1", "0")


def test_tiers_together_show_every_endpoint_once_and_the_own_ones_first() -> None:
    one, two = (EndpointState("10.0.0.1", port, 0.0) for port in (1, 2))
    own = RandomPicker([one], [3], [False], lambda: 0.5)
    all_ = RandomPicker([two, one], [1, 1], [True, True], lambda: 0.5)
    picker = FailoverPicker({"own": own, "all": all_}, lambda: 0.5)
    assert (picker.states, picker.weights) == ((one, two), {one: 3, two: 1})
    assert [picker.home(state) for state in picker.states] == ["own", "all"]
    assert picker.cost(one, 0.0) == own.cost(one, 0.0)
