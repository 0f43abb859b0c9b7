from __future__ import annotations

import math
from random import Random

import pytest

from meshlib.call.effects import Failure, Outcome, Send
from meshlib.state.endpoint import EndpointState
from meshlib.testing.clock import ManualClock
from meshlib.testing.scripted import Behaviour, ScriptedEndpoint, constant
from meshlib.testing.simulation import percentile
from meshlib.testing.timeline import Timeline

SECOND = Behaviour(constant(1.0))


def test_a_manual_clock_moves_when_it_is_told_and_never_back() -> None:
    clock = ManualClock(5.0)
    assert clock() == 5.0
    assert clock.advance(2.5) == clock() == 7.5
    with pytest.raises(ValueError, match=r"can't go back by 1.0 s"):
        clock.advance(-1.0)


def test_events_happen_in_order_of_time_and_then_of_planning() -> None:
    timeline, seen = Timeline(), list[str]()
    for instant, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (math.inf, "never")):
        timeline.at(instant, lambda name=name: seen.append(name))  # type: ignore[misc]
    timeline.run()
    assert seen == ["a", "b", "c"]
    assert timeline.clock() == 2.0


def test_an_event_may_plan_another_and_one_planned_for_the_past_happens_now() -> None:
    timeline, seen = Timeline(), list[float]()
    timeline.at(3.0, lambda: timeline.at(1.0, lambda: seen.append(timeline.clock())))
    timeline.run()
    assert seen == [3.0]


def test_a_cancelled_event_does_not_happen() -> None:
    timeline, seen = Timeline(), list[int]()
    timeline.after(1.0, lambda: seen.append(1)).cancel()
    timeline.run()
    assert seen == []


def test_time_stops_where_it_is_told_to() -> None:
    timeline, seen = Timeline(), list[int]()
    for second in range(1, 6):
        timeline.at(second, lambda second=second: seen.append(second))  # type: ignore[misc]
    timeline.run(until=2.5)
    assert (seen, timeline.clock()) == ([1, 2], 2.5)
    timeline.run()
    assert seen == [1, 2, 3, 4, 5]


class Guests:
    """Requests to one endpoint, and when each was answered."""

    def __init__(self, endpoint: ScriptedEndpoint) -> None:
        self.endpoint = endpoint
        self.timeline = Timeline()
        self.random = Random(1)
        self.answers: dict[str, tuple[float, Outcome]] = {}

    def arrive(self, name: str, at: float = 0.0, expires: float | None = None) -> None:
        send = Send(EndpointState("10.0.0.1", 80, 0.0), 1, expires, 10.0)

        def answered(outcome: Outcome) -> None:
            self.answers[name] = (self.timeline.clock(), outcome)

        self.timeline.at(at, lambda: self.endpoint.receive(send, self.timeline, self.random, answered))

    def times(self) -> dict[str, float]:
        self.timeline.run()
        return {name: instant for name, (instant, _) in self.answers.items()}


def test_an_endpoint_works_on_so_many_at_a_time_and_the_others_wait_in_line() -> None:
    guests = Guests(ScriptedEndpoint(SECOND, concurrency=2))
    for name in "abcde":
        guests.arrive(name)
    assert guests.times() == {"a": 1.0, "b": 1.0, "c": 2.0, "d": 2.0, "e": 3.0}


def test_who_gives_up_in_line_is_passed_over_and_who_gives_up_at_the_counter_is_served_all_the_same() -> None:
    guests = Guests(ScriptedEndpoint(SECOND, concurrency=1))
    guests.arrive("a", expires=0.5)
    guests.arrive("b", expires=0.6)
    guests.arrive("c")
    assert guests.times() == {"a": 0.5, "b": 0.6, "c": 2.0}
    assert guests.answers["a"][1].failure is Failure.TIMEOUT


def test_an_endpoint_changes_its_behaviour_by_its_script() -> None:
    script = [(10.0, SECOND._replace(down=True)), (20.0, SECOND._replace(errors=1.0, status=500, retry_after=3.0))]
    guests = Guests(ScriptedEndpoint(SECOND, script))
    for name, at in (("well", 9.9), ("down", 10.0), ("failing", 20.0)):
        guests.arrive(name, at)
    guests.times()
    outcomes = {name: outcome for name, (_, outcome) in guests.answers.items()}
    assert outcomes["well"].status == 200
    assert (outcomes["down"].failure, outcomes["down"].sent) == (Failure.CONNECT, False)
    assert (outcomes["failing"].status, outcomes["failing"].retry_after) == (500, 3.0)
    assert guests.endpoint.received == 2


def test_a_percentile_is_the_value_that_so_many_do_not_exceed() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1.0, 50.0, 99.0, 100.0]
    with pytest.raises(ValueError, match="no call has ended"):
        percentile([], 50)
