"""Consistent hashing over a fleet: who goes where, and who moves when an endpoint dies."""

from __future__ import annotations

import pytest

from meshlib.testing.scripted import Behaviour, ScriptedEndpoint, constant
from meshlib.testing.simulation import Request, Simulation
from tests.sim.worlds import assert_at_rest, document, fleet

KEYS = 300
QUICK = Behaviour(constant(0.001))
DEAD = Behaviour(constant(0.0), down=True)


def sent(simulation: Simulation) -> dict[str, list[str]]:
    """The addresses of each key's attempts, in one round of calls."""
    calls = {}
    for number in range(KEYS):
        calls[f"user-{number}"] = simulation.call(Request("reviews", headers={"x-user": f"user-{number}"}))
    simulation.run(simulation.now + 5.0)
    return {user: [attempt[0].address for attempt in call.attempts] for user, call in calls.items()}


@pytest.mark.parametrize("algorithm", ["ringHash", "maglev"])
def test_when_an_endpoint_dies_only_its_keys_move_and_they_scatter(algorithm: str) -> None:
    policy = {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user", algorithm: {}}}}
    endpoints = [ScriptedEndpoint(QUICK) for _ in range(10)]
    endpoints[3] = ScriptedEndpoint(QUICK, [(10.0, DEAD)])
    simulation = fleet(endpoints, [document("DestinationRule", host="reviews", trafficPolicy=policy)])
    before = sent(simulation)
    assert before == sent(simulation)
    assert len({home for [home] in before.values()}) == 10

    dead = "10.0.0.4:80"
    during = sent(simulation)
    assert all(during[user] == home for user, home in before.items() if home != [dead])
    moved = [during[user] for user, home in before.items() if home == [dead]]
    assert moved
    assert all(home[-1] != dead for home in moved)
    assert len({home[-1] for home in moved}) >= 4
    assert all(finished.good for finished in simulation.finished)
    assert_at_rest(simulation)
