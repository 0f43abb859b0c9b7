"""Five times what one worker can do, in virtual time: what is promised of overload, exactly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from random import Random

import pytest

from meshlib.state.inbound import InboundState
from tests.sim.workers import Done, Loop, Pool, Work, Worker, load_from, percentile_of

CAPACITY = 200.0
"""Requests a second, of each kind of work here."""

CRITICAL = {"critical": CAPACITY / 4}
FIVEFOLD = {**CRITICAL, "default": CAPACITY * 1.25, "best-effort": CAPACITY * 3.5}

QUIET, SETTLED, END = 6.0, 8.0, 16.0
"""Seconds: until then only critical requests come; from here on it counts; the end."""

DEADLINE = 0.25
"""Seconds a caller waits."""

FOUND = "{concurrency: {adaptive: {initialLimit: 20}, maxPending: 50, maxWait: 50ms}}"
KNOWN = "{concurrency: {maxRequests: 10, maxPending: 50, maxWait: 50ms}}"
SIGNALS = "overload: {eventLoopLag: 25ms, queueTime: 20ms}"
ALL = FOUND[:-1] + ", " + SIGNALS + "}"


def computing() -> Work:
    """5 ms of the processor, while nobody else is served."""

    def compute(loop: Loop, done: Done) -> None:
        loop.clock.advance(0.005)
        done()

    return compute


def even_pool() -> Work:
    """50 ms, give or take a fifth, with one of ten connections."""
    random = Random(5)
    return Pool(10, lambda: 0.05 * (0.8 + 0.4 * random.random()))


def scattered_pool() -> Work:
    """The same with exponential times."""
    random = Random(5)
    return Pool(10, lambda: random.expovariate(20))


@functools.cache
def overloaded(work: Callable[[], Work], spec: str) -> Worker:
    """A worker that was quiet, and then got five times what it can do; to be looked at only."""
    worker = Worker(work(), load_from(spec, InboundState()) if spec else None)
    worker.expect(CRITICAL, 0.0, QUIET)
    worker.expect(FIVEFOLD, QUIET, END)
    worker.run()
    return worker


@pytest.mark.parametrize("work", [computing, even_pool])
def test_without_the_middleware_it_collapses(work: Callable[[], Work]) -> None:
    assert overloaded(work, "").goodput(SETTLED, END, DEADLINE) == 0


@pytest.mark.parametrize(
    ("work", "spec", "goodput", "slower"),
    [
        (computing, KNOWN, 0.85, 1.8),
        (computing, ALL, 0.85, 1.8),
        (even_pool, KNOWN, 0.97, 1.5),
        (even_pool, FOUND, 0.9, 1.9),
        (even_pool, ALL, 0.9, 1.9),
        (scattered_pool, KNOWN, 0.93, 1.5),
        (scattered_pool, ALL, 0.85, 1.6),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_goodput_stays_and_the_critical_are_served_about_as_fast_as_ever(
    work: Callable[[], Work], spec: str, goodput: float, slower: float
) -> None:
    worker = overloaded(work, spec)
    assert worker.goodput(SETTLED, END, DEADLINE) >= goodput * CAPACITY
    quiet = percentile_of(worker.seconds("critical", 1.0, QUIET), 99)
    assert percentile_of(worker.seconds("critical", SETTLED, END), 99) <= slower * quiet


@pytest.mark.parametrize("work", [computing, even_pool])
@pytest.mark.parametrize("spec", [KNOWN, ALL])
def test_best_effort_goes_first_and_the_critical_last(work: Callable[[], Work], spec: str) -> None:
    worker = overloaded(work, spec)
    served = [worker.served(priority, SETTLED, END) for priority in FIVEFOLD]
    assert served[0] >= 0.98  # critical
    assert 0.4 <= served[1] <= 0.7  # default gets what is left
    assert served[2] <= 0.02  # best-effort


def test_best_effort_is_served_when_there_is_nothing_else() -> None:
    worker = Worker(even_pool(), load_from(KNOWN, InboundState()))
    worker.expect({"best-effort": CAPACITY * 5}, 0.0, 6.0)
    worker.run()
    assert worker.goodput(2.0, 6.0, DEADLINE) >= 0.95 * CAPACITY


def test_a_late_loop_alone_turns_away_by_priority() -> None:
    worker = overloaded(computing, "{overload: {eventLoopLag: 10ms}}")
    served = [worker.served(priority, SETTLED, END) for priority in FIVEFOLD]
    assert worker.goodput(SETTLED, END, DEADLINE) >= 0.7 * CAPACITY
    assert served[0] >= 0.85
    assert served == sorted(served, reverse=True)
    assert served[2] <= 0.1


@pytest.mark.parametrize("spec", [KNOWN, ALL])
def test_nothing_is_held_when_all_is_over(spec: str) -> None:
    state = InboundState()
    worker = Worker(even_pool(), load_from(spec, state))
    worker.expect(FIVEFOLD, 0.0, 3.0)
    worker.run()
    assert (state.load.places.inside, state.load.places.waiting) == (0, 0)


def test_the_limit_is_found_from_far_above_and_from_far_below() -> None:
    found = []
    for initial in (4, 60):
        state = InboundState()
        rules = f"{{concurrency: {{adaptive: {{initialLimit: {initial}}}, maxPending: 50, maxWait: 50ms}}}}"
        worker = Worker(even_pool(), load_from(rules, state))
        worker.expect({"critical": 20.0}, 0.0, 5.0)
        worker.expect({"default": CAPACITY * 2}, 5.0, 15.0)
        worker.loop.at(14.9, lambda places=state.load.places: found.append(places.limit))  # type: ignore[misc]
        worker.run()
    assert all(10 <= limit <= 20 for limit in found), found
