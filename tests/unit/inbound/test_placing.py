"""Shedding and places, with effects performed by hand."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from meshlib.inbound.clocks import Clocks
from meshlib.inbound.denials import Denial, Permit
from meshlib.inbound.effects import Queue
from meshlib.inbound.placing import place, shed
from meshlib.inbound.pulse import LoopPulse
from meshlib.policy.arriving import Arriving
from meshlib.policy.overload import Load
from meshlib.state.adaptive import BASE_WANTED, AdaptiveBounds
from meshlib.state.load import PlaceBounds, Places
from meshlib.testing.clock import ManualClock


class Entrance:
    """Requests that come to one load."""

    def __init__(self, most: int = 1, *, pending: int = 5, lag: float | None = None, loop: bool = False) -> None:
        self.clock = ManualClock(100.0)
        self.chance = 0.5
        self.calls: list[Callable[[], object]] = []
        self.places = Places()
        bounds = PlaceBounds(most, AdaptiveBounds(1, 10, most) if loop else None, pending, 1.0)
        self.load = Load(places=self.places, bounds=bounds, lag=lag)
        self.pulse = LoopPulse(self.calls.append, lambda seconds, call: None, self.clock)
        self.clocks = Clocks(self.clock, self.clock, lambda: self.chance, self.pulse if loop else None)

    def turn(self) -> None:
        """Let the loop run what is ready."""
        calls, self.calls[:] = list(self.calls), []
        for call in calls:
            call()

    def come(self, priority: str = "default", *headers: tuple[bytes, bytes]) -> tuple[Permit, Any]:
        """What becomes of one request at once: a denial, None (it is inside), or a step that waits."""
        arriving = Arriving("GET", b"/", [(b"x-meshlib-priority", priority.encode()), *headers], seen="/")
        permit = Permit()
        denial = shed(self.load, arriving, permit, self.clocks)
        return permit, place(self.load, arriving, permit, self.clocks) if denial is None else denial


def end(step: Generator[Any, Any, Any]) -> Any:
    """What came of a step that waited."""
    with pytest.raises(StopIteration) as ended:
        step.send(None)
    return ended.value.value


def test_a_request_has_its_place_until_it_ends() -> None:
    entrance = Entrance()
    permit, denial = entrance.come()
    assert denial is None
    assert entrance.places.inside == 1
    permit.end(200, 101.0)
    permit.end(200, 102.0)
    assert entrance.places.inside == 0


def test_who_finds_no_place_waits_for_one_and_is_woken() -> None:
    entrance, woken = Entrance(), list[int]()
    first, _ = entrance.come()
    permit, step = entrance.come()
    queue = next(step)
    assert isinstance(queue, Queue)
    assert queue.seconds == 1.0
    queue.waiter.wake = lambda: woken.append(1)
    first.end(200, 100.5)
    assert woken == [1]
    assert end(step) is None
    assert entrance.places.inside == 1
    permit.end(None, 101.0)
    assert entrance.places.inside == 0


def test_who_waits_in_vain_is_told_when_to_come_back() -> None:
    entrance = Entrance()
    entrance.come()
    _, step = entrance.come("best-effort")
    next(step)
    denial = end(step)
    assert isinstance(denial, Denial)
    assert (denial.status, denial.code) == (503, "UO")
    headers = dict(denial.headers)
    assert headers[b"x-envoy-overloaded"] == b"true"
    assert headers[b"retry-after"] == b"3"
    assert "best-effort" in denial.reason
    assert b"best-effort" not in denial.body
    assert entrance.places.waiting == 0


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, b"1"), (0.3, b"2"), (0.99, b"4")])
def test_callers_do_not_come_back_together(chance: float, seconds: bytes) -> None:
    entrance = Entrance(pending=0)
    entrance.come()
    entrance.chance = chance
    _, step = entrance.come()
    assert dict(end(step).headers)[b"retry-after"] == seconds


def test_nobody_waits_for_longer_than_his_caller() -> None:
    entrance = Entrance()
    entrance.come()
    for said, seconds in ((b"300", 0.3), (b"5000", 1.0), (b"soon", 1.0), (b"9" * 30, 1.0)):
        _, step = entrance.come("default", (b"x-envoy-expected-rq-timeout-ms", said))
        assert next(step).seconds == seconds
        step.close()


def test_who_is_cancelled_in_the_queue_leaves_nothing_behind() -> None:
    entrance = Entrance()
    first, _ = entrance.come()
    _, step = entrance.come()
    next(step)
    step.close()
    assert entrance.places.waiting == 0
    first.end(200, 101.0)
    assert entrance.places.inside == 0


def test_a_place_granted_to_who_is_cancelled_is_passed_on() -> None:
    entrance = Entrance()
    first, _ = entrance.come()
    _, cancelled = entrance.come()
    _, next_one = entrance.come()
    next(cancelled)
    next(next_one)
    first.end(200, 101.0)
    cancelled.close()
    assert end(next_one) is None
    assert entrance.places.inside == 1


@pytest.mark.parametrize(
    ("status", "counts"), [(200, True), (304, True), (101, False), (404, False), (503, False), (None, False)]
)
def test_only_good_answers_say_how_long_a_request_takes(status: int | None, counts: bool) -> None:
    entrance = Entrance(4, loop=True)
    for _ in range(BASE_WANTED):
        permit, _ = entrance.come()
        permit.end(status, entrance.clock() + 0.05)
        entrance.turn()
    assert (entrance.places.adaptive.base == pytest.approx(0.05)) is counts


def test_without_concurrency_nobody_needs_a_place() -> None:
    load, permit = Load(), Permit()
    arriving = Arriving("GET", b"/", [], seen="/")
    clocks = Clocks(lambda: 0.0, lambda: 0.0, lambda: 0.0)
    assert shed(load, arriving, permit, clocks) is None
    assert place(load, arriving, permit, clocks) is None
    assert permit.priority == "default"
    assert not permit.watched


def test_on_a_loop_that_was_busy_the_important_comes_before_who_was_there_first() -> None:
    entrance = Entrance(10, loop=True)
    entrance.come()
    entrance.clock.advance(0.005)  # the first computes
    _, early = entrance.come("best-effort")
    next(early)
    entrance.turn()  # the loop looks; the server reads
    entrance.turn()
    _, late = entrance.come("critical")  # and the task of what it read begins
    assert end(late) is None  # without a wait
    assert (entrance.places.inside, entrance.places.waiting) == (2, 1)
    for _ in range(3):
        entrance.turn()
    assert end(early) is None
    assert entrance.places.inside == 3


def test_on_a_loop_that_was_not_busy_nobody_waits() -> None:
    entrance = Entrance(10, loop=True)
    for _ in range(10):
        assert entrance.come()[1] is None
        entrance.clock.advance(0.00005)


def test_signals_turn_away_by_chance_and_by_priority() -> None:
    entrance = Entrance(10, lag=0.1, loop=True)
    entrance.pulse.lag = 0.125
    for priority, chance, denied in (
        ("best-effort", 0.49, True),
        ("best-effort", 0.51, False),
        ("default", 0.0, False),
        ("critical", 0.0, False),
    ):
        entrance.chance = chance
        _, denial = entrance.come(priority)
        assert isinstance(denial, Denial) is denied
    entrance.pulse.lag = 9.0
    _, denial = entrance.come("critical")
    assert isinstance(denial, Denial)
    assert "the event loop is late" in denial.reason
