"""Faults injected before the application, on both middlewares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from meshlib.inbound.effects import Pause
from tests.support.inbound import Kind, Side, get

ABORT = {"abort": {"httpStatus": 503, "percentage": {"value": 30}}}
DELAY = {"delay": {"fixedDelay": "2s", "percentage": {"value": 60}}}


def policy(*faults: dict[str, Any]) -> str:
    return json.dumps(
        {
            "apiVersion": "meshlib/v1",
            "kind": "InboundPolicy",
            "metadata": {"name": "faults"},
            "spec": {"faults": faults},
        }
    )


class Chaos:
    """A side whose chance is given, and whose pauses are only noted."""

    def __init__(self, kind: Kind, documents: str, *chances: float) -> None:
        self.side = Side(kind, documents)
        self.paused: list[float] = []
        left: Iterator[float] = iter(chances)
        gate = self.side.gate
        gate.clocks = gate.clocks._replace(random=lambda: next(left))

        async def pause(effect: Pause) -> None:
            self.paused.append(effect.seconds)

        gate.async_performers[Pause] = pause
        gate.performers[Pause] = lambda effect: self.paused.append(effect.seconds)


@pytest.mark.parametrize(("chance", "status"), [(0.0, 503), (0.299, 503), (0.3, 200), (0.999, 200)])
def test_an_abort_is_for_its_share(chance: float, status: int, kind: Kind) -> None:
    reply = Chaos(kind, policy({"fault": ABORT}), chance).side.ask(get())
    assert (reply.status, reply.code) == (status, "FI" if status == 503 else "")
    assert (reply.seen is None) == (status == 503)


@pytest.mark.parametrize(("chance", "paused"), [(0.599, [2.0]), (0.6, [])])
def test_a_delay_is_for_its_share(chance: float, paused: list[float], kind: Kind) -> None:
    chaos = Chaos(kind, policy({"fault": DELAY}), chance)
    assert chaos.side.ask(get()).seen is not None
    assert chaos.paused == paused


def test_the_delay_comes_before_the_abort(kind: Kind) -> None:
    chaos = Chaos(kind, policy({"fault": {**DELAY, **ABORT}}), 0.0, 0.0)
    assert chaos.side.ask(get()).status == 503
    assert chaos.paused == [2.0]


def test_the_first_fault_that_matches_counts(kind: Kind) -> None:
    quiet = {"delay": {"fixedDelay": "1s", "percentage": {"value": 0}}}
    faults = policy(
        {"match": [{"uri": {"prefix": "/spared"}}, {"headers": {"x-spare": {}}}], "fault": quiet},
        {"fault": {"abort": {"httpStatus": 599, "percentage": {"value": 100}}}},
    )
    chaos = Chaos(kind, faults, 0.0, 0.0)
    assert chaos.side.ask(get("/spared/1")).status == 200
    assert chaos.side.ask(get("/", ("x-spare", "yes"))).status == 200
    assert chaos.side.ask(get("/")).status == 599


def test_a_real_pause_takes_its_time(kind: Kind) -> None:
    delay = {"delay": {"fixedDelay": "20ms", "percentage": {"value": 100}}}
    side = Side(kind, policy({"fault": delay}))
    clock = side.gate.clocks.now
    began = clock()
    assert side.ask(get()).status == 200
    assert clock() - began >= 0.02
