"""One worker in virtual time: an event loop that takes its turns as asyncio's does, and what comes in."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple

from meshlib.inbound.clocks import Clocks
from meshlib.inbound.denials import Denial, Permit
from meshlib.inbound.placing import place, shed
from meshlib.inbound.pulse import LoopPulse
from meshlib.plan.loads import load_of
from meshlib.policy.arriving import Arriving
from meshlib.policy.overload import Load
from meshlib.resources import InboundPolicySpec, Source, load
from meshlib.state.inbound import InboundState
from meshlib.testing.clock import ManualClock

__all__ = ["Answer", "Loop", "Pool", "Worker", "load_from", "percentile_of"]

Call = Callable[[], object]
Done = Callable[[], object]
Work = Callable[["Loop", Done], object]
"""What a request does: it calls `Done` when it has."""

HEAD = 0.0001
"""Seconds it takes to read a request, and to turn one away."""


class Loop:
    """Turns of an event loop: look for what has come, run what was ready at that moment, look again."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._ready = deque[Call]()
        self._later: list[tuple[float, int, Call]] = []
        self._order = itertools.count()

    def soon(self, call: Call) -> None:
        self._ready.append(call)

    def later(self, seconds: float, call: Call) -> None:
        self.at(self.clock.now + seconds, call)

    def at(self, instant: float, call: Call) -> None:
        heapq.heappush(self._later, (instant, next(self._order), call))

    def run(self) -> None:
        """Until nothing is left to do."""
        while self._ready or self._later:
            if not self._ready:
                self.clock.now = max(self.clock.now, self._later[0][0])
            while self._later and self._later[0][0] <= self.clock.now:
                self._ready.append(heapq.heappop(self._later)[2])
            for _ in range(len(self._ready)):
                self._ready.popleft()()


class Pool:
    """Connections that `size` requests can have at one time, first come first served."""

    def __init__(self, size: int, takes: Callable[[], float]) -> None:
        self._free = size
        self._takes = takes
        self._line = deque[Done]()

    def __call__(self, loop: Loop, done: Done) -> None:
        if self._free:
            self._free -= 1
            self._serve(loop, done)
        else:
            self._line.append(done)

    def _serve(self, loop: Loop, done: Done) -> None:
        def end() -> None:
            done()
            if self._line:
                self._serve(loop, self._line.popleft())
            else:
                self._free += 1

        loop.later(self._takes(), end)


class Answer(NamedTuple):
    """What became of a request; `seconds` from when it was sent."""

    priority: str
    good: bool
    sent: float
    seconds: float


class Worker:
    """Serves requests that come by chance.

    Args:
        work: of each request.
        rules: by which it is let in; None: everything is.
    """

    def __init__(self, work: Work, rules: Load | None, *, seed: int = 1) -> None:
        self.loop = Loop()
        self.answers: list[Answer] = []
        self.rules = rules
        self._work = work
        self._random = Random(seed)
        pulse = LoopPulse(self.loop.soon, self.loop.later, self.loop.clock)
        self._clocks = Clocks(self.loop.clock, self.loop.clock, self._random.random, pulse)

    def expect(self, rates: Mapping[str, float], since: float, until: float) -> None:
        """Have so many of each priority come in a second, by chance, within a while."""
        for priority, rate in rates.items():
            at = since + self._random.expovariate(rate)
            while at < until:
                self._send(priority, at)
                at += self._random.expovariate(rate)

    def run(self) -> None:
        """Serve all that comes."""
        self.loop.run()

    def _send(self, priority: str, at: float) -> None:
        # The server reads what came at one turn of its loop, and the task that serves it begins at the next.
        self.loop.at(at, lambda: self.loop.soon(lambda: self._arrive(priority, at)))

    def _arrive(self, priority: str, sent: float) -> None:
        self.loop.clock.advance(HEAD)
        permit = Permit()

        def answered(status: int) -> None:
            permit.end(status, self.loop.clock())
            self.answers.append(Answer(priority, status == 200, sent, self.loop.clock() - sent))

        if self.rules is None:
            self._work(self.loop, lambda: answered(200))
            return
        arriving = Arriving("GET", b"/", [(b"x-meshlib-priority", priority.encode())], seen="/")
        if shed(self.rules, arriving, permit, self._clocks) is not None:
            answered(503)
            return
        placed = place(self.rules, arriving, permit, self._clocks)
        if placed is None or isinstance(placed, Denial):
            self._begin(placed, answered)
        else:
            self._place(placed, answered)

    def _place(self, step: Any, answered: Callable[[int], None]) -> None:
        try:
            effect = next(step)
        except StopIteration as end:
            self._begin(end.value, answered)
            return
        waiting = [True]

        def resume() -> None:
            if waiting:
                waiting.clear()
                try:
                    step.send(None)
                except StopIteration as end:
                    self._begin(end.value, answered)

        effect.waiter.wake = lambda: self.loop.soon(resume)
        self.loop.later(effect.seconds, resume)

    def _begin(self, denial: object, answered: Callable[[int], None]) -> None:
        if denial is not None:
            answered(503)
        else:
            self._work(self.loop, lambda: answered(200))

    def goodput(self, since: float, until: float, deadline: float) -> float:
        """Answers a second that came in time, of what was sent within a while."""
        return sum(one.good and one.seconds <= deadline for one in self._of(since, until)) / (until - since)

    def served(self, priority: str, since: float, until: float) -> float:
        """The share of a priority that was let in."""
        its = [one.good for one in self._of(since, until) if one.priority == priority]
        return sum(its) / len(its)

    def seconds(self, priority: str, since: float, until: float) -> list[float]:
        """Of the good answers, in order."""
        return sorted(one.seconds for one in self._of(since, until) if one.priority == priority and one.good)

    def _of(self, since: float, until: float) -> list[Answer]:
        return [one for one in self.answers if since <= one.sent < until]


def load_from(spec: str, state: InboundState) -> Load:
    """The load of an InboundPolicy whose spec is a line of YAML."""
    text = f"apiVersion: meshlib/v1\nkind: InboundPolicy\nmetadata: {{name: one}}\nspec: {spec}\n"
    loaded = load([Source("one", text.encode())])
    assert not loaded.problems, loaded.problems
    [resource] = loaded.resources
    assert isinstance(resource.spec, InboundPolicySpec)
    found = load_of(resource.spec, state)
    assert found is not None
    return found


def percentile_of(values: list[float], percent: float) -> float:
    """The value that `percent` of the sorted values don't exceed."""
    return values[min(len(values) - 1, int(len(values) * percent / 100))]
