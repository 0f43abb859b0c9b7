"""Endpoints that behave by a script, in virtual time."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from meshlib.call.effects import Failure, Outcome, Send
from meshlib.testing.timeline import Event, Timeline

__all__ = ["Behaviour", "ScriptedEndpoint", "Seconds", "constant", "exponential"]

Seconds = Callable[[Random], float]
"""A distribution: draws a number of seconds."""

ROUND_TRIP = 0.0005
"""Seconds in which a refused connection is known to be refused."""


def constant(seconds: float) -> Seconds:
    """Always the same; `math.inf` never comes to an end."""
    return lambda random: seconds


def exponential(mean: float) -> Seconds:
    """Exponentially distributed with a mean in seconds: the usual long tail of a service's times."""
    return lambda random: random.expovariate(1.0 / mean)


class Behaviour(NamedTuple):
    """How an endpoint answers.

    Attributes:
        takes: seconds of work for one request.
        errors: share of requests answered with `status`, 0 to 1.
        status: of those.
        retry_after: seconds those ask the caller to wait; None: they don't say.
        down: it refuses connections.
    """

    takes: Seconds
    errors: float = 0.0
    status: int = 503
    retry_after: float | None = None
    down: bool = False


class Visit:
    """One request on its way through an endpoint, and the caller's patience with it."""

    __slots__ = ("_done", "_timer", "given_up")

    def __init__(self, timeline: Timeline, expires: float | None, done: Callable[[Outcome], None]) -> None:
        self._done = done
        self.given_up = False
        self._timer: Event | None = timeline.at(expires, self._expire) if expires is not None else None

    def cancel(self) -> None:
        """The caller has lost interest."""
        self.given_up = True
        if self._timer is not None:
            self._timer.cancel()

    def answer(self, outcome: Outcome) -> None:
        """Hand the outcome to a caller who still waits for it."""
        if not self.given_up:
            self.cancel()
            self._done(outcome)

    def _expire(self) -> None:
        self.answer(Outcome(failure=Failure.TIMEOUT))


class ScriptedEndpoint:
    """Serves `concurrency` requests at a time; the others wait in line.

    A caller who gives up while in line is passed over; work that has begun is finished whether or not anybody waits.

    Args:
        behaviour: from the start.
        changes: (instant in seconds, behaviour from then on), in order of time.
        concurrency: requests worked on at a time; None: any number.

    Attributes:
        received: requests that reached it.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        changes: Sequence[tuple[float, Behaviour]] = (),
        *,
        concurrency: int | None = None,
    ) -> None:
        self._instants = [instant for instant, _ in changes]
        self._behaviours = [behaviour, *(changed for _, changed in changes)]
        self._concurrency = concurrency
        self._working = 0
        self._line: deque[Visit] = deque()
        self.received = 0

    def behaviour(self, now: float) -> Behaviour:
        """What is in force at `now`."""
        return self._behaviours[bisect.bisect_right(self._instants, now)]

    def receive(self, send: Send, timeline: Timeline, random: Random, done: Callable[[Outcome], None]) -> Visit:
        """Take a request in; `done` is told the outcome, at `send.expires` the latest."""
        visit = Visit(timeline, send.expires, done)
        if self.behaviour(timeline.clock.now).down:
            timeline.after(ROUND_TRIP, lambda: visit.answer(Outcome(failure=Failure.CONNECT, sent=False)))
            return visit
        self.received += 1
        self._line.append(visit)
        self._work(timeline, random)
        return visit

    def _work(self, timeline: Timeline, random: Random) -> None:
        while self._line and (self._concurrency is None or self._working < self._concurrency):
            visit = self._line.popleft()
            if not visit.given_up:
                self._working += 1
                self._serve(visit, timeline, random)

    def _serve(self, visit: Visit, timeline: Timeline, random: Random) -> None:
        behaviour = self.behaviour(timeline.clock.now)

        def finish() -> None:
            self._working -= 1
            if behaviour.errors and random.random() < behaviour.errors:
                visit.answer(Outcome(behaviour.status, retry_after=behaviour.retry_after))
            else:
                visit.answer(Outcome(200))
            self._work(timeline, random)

        timeline.after(behaviour.takes(random), finish)
