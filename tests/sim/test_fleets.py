from __future__ import annotations

import math

import pytest

from meshlib.call.effects import Failure
from meshlib.testing.scripted import Behaviour, ScriptedEndpoint, constant, exponential
from meshlib.testing.simulation import Request, Simulation, percentile
from tests.sim.worlds import (
    HOST,
    REVIEWS,
    assert_at_rest,
    attempts,
    balanced,
    document,
    fleet,
    instances,
    snapshot,
)

WELL = Behaviour(exponential(0.010))
DOWN = WELL._replace(down=True)
FAILING = WELL._replace(errors=1.0)


def well(count: int) -> list[ScriptedEndpoint]:
    return [ScriptedEndpoint(WELL) for _ in range(count)]


@pytest.mark.parametrize("balancer", ["ROUND_ROBIN", "RANDOM", "LEAST_REQUEST", "PEAK_EWMA"])
def test_the_same_seed_gives_the_same_picks(balancer: str) -> None:
    def picks(seed: int) -> list[tuple[str, float]]:
        simulation = fleet(well(5), [balanced(balancer)], seed=seed)
        simulation.arrive(REVIEWS, rate=100.0, end=2.0)
        simulation.run()
        return [(finished.call.attempts[0][0].address, finished.ended) for finished in simulation.finished]

    assert picks(7) == picks(7)
    assert picks(7) != picks(8)


@pytest.mark.slow
@pytest.mark.parametrize("failure", [DOWN, FAILING, Behaviour(constant(math.inf))], ids=["down", "failing", "hanging"])
def test_a_total_outage_brings_no_storm_of_retries_and_is_over_soon_after_its_end(failure: Behaviour) -> None:
    rate = 100.0
    endpoints = [ScriptedEndpoint(WELL, [(20.0, failure), (50.0, WELL)]) for _ in range(5)]
    # The floor of a quiet client, ten retries a second, is nothing beside thousands of calls: here it is left out.
    budget = document("OutboundPolicy", host="reviews", deadline="2s", retryBudget={"minRetriesPerSecond": 0})
    retries = {"attempts": 3, "retryOn": "5xx,reset,connect-failure", "perTryTimeout": "500ms"}
    service = document(
        "VirtualService",
        hosts=["reviews"],
        http=[{"route": [{"destination": {"host": "reviews"}}], "retries": retries}],
    )
    simulation = fleet(endpoints, [budget, service])
    simulation.arrive(REVIEWS, rate, end=80.0)
    simulation.run()
    outage = [finished for finished in simulation.finished if 30.0 <= finished.call.started < 47.0]
    assert not any(finished.good for finished in outage)
    assert sum(len(finished.call.attempts) for finished in outage) <= 1.25 * len(outage)
    assert attempts(simulation) <= 1.2 * len(simulation.finished)
    assert all(finished.good for finished in simulation.finished if finished.call.started >= 60.0)
    assert_at_rest(simulation)


def test_by_default_a_quiet_client_may_add_ten_retries_a_second_to_the_fifth() -> None:
    simulation = fleet([ScriptedEndpoint(FAILING)])
    simulation.arrive(REVIEWS, rate=50.0, end=60.0)
    simulation.run()
    calls = len(simulation.finished)
    assert calls < attempts(simulation) <= calls * 1.2 + 10.0 * (60.0 + 10.0)


@pytest.mark.slow
def test_what_is_overloaded_by_retries_recovers_when_the_cause_is_gone() -> None:
    # 80 % busy. For ten seconds each request takes five times as long; then everything is as before.
    slow = Behaviour(exponential(0.200))
    endpoints = [
        ScriptedEndpoint(
            Behaviour(exponential(0.040)), [(20.0, slow), (30.0, Behaviour(exponential(0.040)))], concurrency=4
        )
        for _ in range(4)
    ]
    deadline = document("OutboundPolicy", host="reviews", deadline="1s")
    simulation = fleet(endpoints, [deadline])
    simulation.arrive(REVIEWS, rate=320.0, end=60.0)
    simulation.run()
    late = [finished for finished in simulation.finished if finished.call.started >= 40.0]
    assert sum(finished.good for finished in late) >= 0.99 * len(late)
    assert_at_rest(simulation)


def tail(balancer: str) -> float:
    """The 99th percentile with one endpoint of ten that takes fifty times as long."""
    endpoints = [ScriptedEndpoint(Behaviour(exponential(0.500)), concurrency=8), *well(9)]
    simulation = fleet(endpoints, [balanced(balancer)])
    simulation.arrive(REVIEWS, rate=100.0, end=60.0)
    simulation.run()
    return percentile([finished.seconds for finished in simulation.finished], 99.0)


@pytest.mark.slow
def test_peak_ewma_keeps_away_from_the_one_slow_endpoint_of_ten() -> None:
    assert tail("PEAK_EWMA") * 3.0 <= tail("ROUND_ROBIN")


def test_one_endpoint_of_three_that_fails_everything_is_noticed_by_nobody() -> None:
    rule = document(
        "DestinationRule",
        host="reviews",
        trafficPolicy={"outlierDetection": {"consecutive5xxErrors": 5, "baseEjectionTime": "30s"}},
    )
    endpoints = [ScriptedEndpoint(FAILING), *well(2)]
    simulation = fleet(endpoints, [rule])
    simulation.arrive(REVIEWS, rate=100.0, end=60.0)
    simulation.run()
    assert all(finished.good for finished in simulation.finished)
    assert attempts(simulation) <= 1.2 * len(simulation.finished)
    assert endpoints[0].received <= 30
    assert_at_rest(simulation)


def test_an_endpoint_that_is_down_costs_idempotent_calls_nothing_but_a_second_attempt() -> None:
    simulation = fleet([ScriptedEndpoint(DOWN), *well(2)])
    for method in ("GET", "POST"):  # what was never sent may be sent again, whatever it is
        simulation.arrive(Request("reviews", method), rate=20.0, end=30.0)
    simulation.run()
    assert all(finished.good for finished in simulation.finished)


def test_a_call_that_may_not_be_repeated_reaches_an_endpoint_once() -> None:
    endpoints = [ScriptedEndpoint(FAILING) for _ in range(3)]
    simulation = fleet(endpoints)
    simulation.arrive(Request("reviews", "POST"), rate=50.0, end=20.0)
    simulation.run()
    assert sum(endpoint.received for endpoint in endpoints) == len(simulation.finished)


def test_a_breaker_spares_a_service_that_is_down_and_lets_calls_through_when_it_is_back() -> None:
    endpoint = ScriptedEndpoint(WELL, [(10.0, FAILING), (40.0, WELL)])
    policy = document("OutboundPolicy", host="reviews", circuitBreaker={"openFor": "2s", "maxOpenFor": "8s"})
    simulation = fleet([endpoint], [policy])
    simulation.arrive(REVIEWS, rate=50.0, end=60.0)
    simulation.run()
    outage = [finished for finished in simulation.finished if 15.0 <= finished.call.started < 40.0]
    refused = [finished for finished in outage if finished.outcome.failure is Failure.CIRCUIT_OPEN]
    assert len(refused) >= 0.9 * len(outage)
    assert all(finished.good for finished in simulation.finished if finished.call.started >= 49.0)
    assert_at_rest(simulation)


def hedging(**hedge: object) -> Simulation:
    """Ten endpoints that take half a second for one request in a hundred."""
    lumpy = Behaviour(lambda random: 0.5 if random.random() < 0.01 else random.uniform(0.008, 0.012))
    documents = [document("OutboundPolicy", host="reviews", hedging=hedge)] if hedge else []
    simulation = fleet([ScriptedEndpoint(lumpy) for _ in range(10)], documents)
    simulation.arrive(REVIEWS, rate=200.0, end=60.0)
    simulation.run()
    assert_at_rest(simulation)
    return simulation


@pytest.mark.slow
def test_hedges_cut_the_tail_for_a_small_share_of_extra_attempts() -> None:
    plain, hedged = hedging(), hedging(delay="20ms", maxExtraPercent=2)
    tails = [percentile([finished.seconds for finished in one.finished], 99.5) for one in (plain, hedged)]
    assert tails[0] == pytest.approx(0.5)
    assert tails[1] < 0.05
    assert len(hedged.finished) < attempts(hedged) <= 1.02 * len(hedged.finished)


@pytest.mark.slow
def test_hedges_learn_their_delay_from_what_was_measured() -> None:
    simulation = hedging(percentile=95, maxExtraPercent=10)
    late = [finished.seconds for finished in simulation.finished if finished.call.started > 10.0]
    assert percentile(late, 99.5) < 0.05
    assert attempts(simulation) <= 1.1 * len(simulation.finished)


@pytest.mark.slow
def test_a_swap_in_the_middle_loses_nothing() -> None:
    endpoints = {f"10.0.0.{number}:80": ScriptedEndpoint(WELL) for number in range(1, 5)}
    simulation = Simulation(snapshot(instances(3)), endpoints, seed=3)
    before = {state.address: state for state in simulation.plan.clusters[HOST].endpoints}
    simulation.timeline.at(5.0, lambda: simulation.apply(snapshot(instances(3, first=2), version="2")))
    simulation.arrive(REVIEWS, rate=400.0, end=10.0)
    simulation.run()
    assert all(finished.good for finished in simulation.finished)
    assert {finished.call.version for finished in simulation.finished} == {"1", "2"}
    after = {state.address: state for state in simulation.plan.clusters[HOST].endpoints}
    assert [after[address] for address in ("10.0.0.2:80", "10.0.0.3:80")] == [
        before[address] for address in ("10.0.0.2:80", "10.0.0.3:80")
    ]
    assert endpoints["10.0.0.4:80"].received > 0
    assert before["10.0.0.1:80"].active == 0
    assert_at_rest(simulation)


@pytest.mark.slow
def test_ninety_to_ten_is_ninety_to_ten() -> None:
    rule = document(
        "DestinationRule",
        host="reviews",
        subsets=[{"name": version, "labels": {"version": version}} for version in ("v1", "v2")],
    )
    shares = [
        {"destination": {"host": "reviews", "subset": subset}, "weight": weight}
        for subset, weight in (("v1", 90), ("v2", 10))
    ]
    service = document("VirtualService", hosts=["reviews"], http=[{"route": shares}])
    both = [*instances(2, {"version": "v1"}), *instances(1, {"version": "v2"}, first=3)]
    endpoints = {f"10.0.0.{number}:80": ScriptedEndpoint(WELL) for number in range(1, 4)}
    simulation = Simulation(snapshot(both, [rule, service]), endpoints, seed=5)
    for index in range(10_000):
        simulation.timeline.at(index * 0.001, lambda: simulation.call(REVIEWS))
    simulation.run()
    assert len(simulation.finished) == 10_000
    assert abs(endpoints["10.0.0.3:80"].received - 1000) <= 3 * math.sqrt(10_000 * 0.1 * 0.9)


def test_the_deadline_of_a_call_that_hangs_is_kept_to_the_instant() -> None:
    policy = document("OutboundPolicy", host="reviews", deadline="700ms")
    simulation = fleet([ScriptedEndpoint(Behaviour(constant(math.inf)))], [policy])
    simulation.call(REVIEWS)
    simulation.run()
    (finished,) = simulation.finished
    assert finished.outcome.failure is Failure.DEADLINE
    assert finished.seconds == pytest.approx(0.7)


def test_what_the_plan_does_not_know_cannot_be_simulated() -> None:
    simulation = fleet(well(1))
    with pytest.raises(LookupError, match="GET ratings has no route"):
        simulation.call(Request("ratings"))


def test_with_no_configuration_at_all_a_dead_endpoint_of_three_is_noticed_by_nobody() -> None:
    dead = ScriptedEndpoint(WELL, [(10.0, DOWN)])
    simulation = fleet([dead, *well(2)])
    simulation.arrive(REVIEWS, rate=100.0, end=40.0)
    simulation.run()
    assert all(finished.good for finished in simulation.finished)
    assert attempts(simulation) <= 1.05 * len(simulation.finished)
