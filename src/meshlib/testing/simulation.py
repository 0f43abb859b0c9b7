"""The third driver: whole fleets in virtual time.

The flow, the pickers, budgets, breakers and outlier detection are the real ones; only the endpoints are scripted and
the time is virtual. Minutes of traffic take a moment, and the same seed gives the same picks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple, Protocol

from meshlib.call.call import Call
from meshlib.call.effects import Effect, Flow, Outcome, Race, Send
from meshlib.call.flow import call_flow
from meshlib.plan.compile import compile_plan
from meshlib.plan.snapshot import Snapshot
from meshlib.policy.match import HeadView
from meshlib.policy.retry import IDEMPOTENT_METHODS
from meshlib.state.store import StateStore
from meshlib.testing.scripted import Behaviour, ScriptedEndpoint, constant
from meshlib.testing.timeline import Event, Timeline

__all__ = ["Finished", "Request", "Simulation", "percentile"]

NOBODY = ScriptedEndpoint(Behaviour(constant(0.0), down=True))


class Request(NamedTuple):
    """What is asked for, as far as routing needs it; header names in lower case."""

    host: str
    method: str = "GET"
    target: bytes = b"/"
    headers: Mapping[str, str] = {}


class Finished(NamedTuple):
    """A call that has ended, and when, in seconds of virtual time."""

    call: Call
    outcome: Outcome
    ended: float

    @property
    def good(self) -> bool:
        """Whether a response of less than 500 came."""
        return self.outcome.failure is None and self.outcome.status < 500

    @property
    def seconds(self) -> float:
        """How long the caller waited."""
        return self.ended - self.call.started


class Simulation:
    """A mesh in virtual time.

    Args:
        snapshot: the configuration it starts with.
        endpoints: who answers at each `host:port`; nobody there refuses connections.
        namespace: of the callers.
        seed: of all chance. The world (arrivals, service times) and the mesh (picks, jitter) draw from streams of
            their own, so that two balancers can be compared under the same load.

    Attributes:
        timeline: for whatever else is to happen: `simulation.timeline.at(30.0, ...)`.
        plan: in force; calls keep the one they began with.
        running: calls begun and not ended.
        finished: the others, in the order they ended.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        endpoints: Mapping[str, ScriptedEndpoint],
        *,
        namespace: str = "default",
        seed: int = 0,
    ) -> None:
        self.timeline = Timeline()
        self.finished: list[Finished] = []
        self.running: set[Call] = set()
        self._endpoints = endpoints
        self._namespace = namespace
        self._store = StateStore()
        self._world = Random(seed)
        self._mesh = Random(seed + 1)
        self.apply(snapshot)

    @property
    def now(self) -> float:
        """Seconds of virtual time since the start."""
        return self.timeline.clock.now

    def apply(self, snapshot: Snapshot) -> None:
        """Put another configuration in force; what was observed of endpoints is kept."""
        self.plan = compile_plan(snapshot, self._namespace, self._store, self.now, self._mesh.random)

    def arrive(self, request: Request, rate: float, start: float = 0.0, end: float = math.inf) -> None:
        """Plan a stream of calls.

        Args:
            request: each of them.
            rate: calls per second on average; they come independently of each other (Poisson).
            start: seconds of virtual time of the first possible call.
            end: no call after this.
        """

        def one() -> None:
            self.call(request)
            following()

        def following() -> None:
            instant = max(start, self.now) + self._world.expovariate(rate)
            if instant < end:
                self.timeline.at(instant, one)

        following()

    def call(self, request: Request) -> Call:
        """Begin a call now.

        Raises:
            LookupError: the plan has no route for it, or answers it without calling an endpoint.
        """
        virtual = self.plan.host(request.host, 80)
        raw_headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
        head = HeadView(request.method, request.target, request.host, raw_headers)
        route = virtual.route(head) if virtual is not None else None
        if route is None or not route.split.clusters:
            raise LookupError(
                f"{request.method} {request.host} has no route to a cluster; simulate what calls endpoints"
            )
        idempotent = request.method in IDEMPOTENT_METHODS
        call = Call(request.host, self.now, idempotent=idempotent, version=self.plan.version, head=head)
        self.running.add(call)
        flow = call_flow(route, call, self.timeline.clock, self._mesh.random)
        _Run(self, flow, lambda run, outcome: self._end(call, outcome)).step(None)
        return call

    def run(self, until: float = math.inf) -> None:
        """Let virtual time pass up to `until` seconds, or until nothing is left to happen."""
        self.timeline.run(until)

    def perform(self, effect: Effect, then: Callable[[Outcome | None], None]) -> _Pending:
        """Begin an effect; `then` is told what came of it, later and once, unless the answer is cancelled."""
        if isinstance(effect, Send):
            endpoint = self._endpoints.get(effect.endpoint.address, NOBODY)
            return endpoint.receive(effect, self.timeline, self._world, then)
        if isinstance(effect, Race):
            return _Contest(self, effect, then)
        if effect.discard is not None:
            discard(effect.discard)
        return self.timeline.after(effect.seconds, lambda: then(None))

    def _end(self, call: Call, outcome: Outcome) -> None:
        discard(outcome)  # the body is read in no time
        self.running.remove(call)
        self.finished.append(Finished(call, outcome, self.now))


class _Pending(Protocol):
    """Something a flow waits for."""

    def cancel(self) -> None:
        """Wait for it no more."""


class _Run:
    """One flow on its way: what `drive` does, an effect at a time."""

    __slots__ = ("_done", "_flow", "_pending", "_simulation")

    def __init__(self, simulation: Simulation, flow: Flow, done: Callable[[_Run, Outcome], None]) -> None:
        self._simulation = simulation
        self._flow = flow
        self._done = done
        self._pending: _Pending | None = None

    def step(self, answer: Outcome | None) -> None:
        """Hand the flow what came of its last effect, and perform the next."""
        self._pending = None
        try:
            effect = self._flow.send(answer)
        except StopIteration as end:
            self._done(self, end.value)
        else:
            self._pending = self._simulation.perform(effect, self.step)

    def cancel(self) -> None:
        """Give up what it waits for; its `finally` does the accounting."""
        if self._pending is not None:
            self._pending.cancel()
        self._flow.close()


class _Contest:
    """A race: the first good outcome wins, else the last one; the loser is cancelled."""

    __slots__ = ("_planned", "_race", "_running", "_simulation", "_then")

    def __init__(self, simulation: Simulation, race: Race, then: Callable[[Outcome | None], None]) -> None:
        self._simulation = simulation
        self._race = race
        self._then = then
        self._running: list[_Run] = []
        # The first begins in an event of its own: what ends at once would end before anybody waits for it.
        timeline = simulation.timeline
        self._planned: tuple[Event, ...] = (
            timeline.after(0.0, lambda: self._begin(race.first)),
            timeline.after(race.delay, self._begin_second),
        )

    def cancel(self) -> None:
        """End both without an outcome."""
        waiting: list[_Pending] = [*self._planned, *self._running]
        for one in waiting:
            one.cancel()

    def _begin(self, flow: Flow) -> None:
        run = _Run(self._simulation, flow, self._ended)
        self._running.append(run)
        run.step(None)

    def _begin_second(self) -> None:
        flow = self._race.second()
        if flow is not None:
            self._begin(flow)

    def _ended(self, run: _Run, outcome: Outcome) -> None:
        self._running.remove(run)
        if self._running and not outcome.good:
            discard(outcome)
            return
        self.cancel()
        self._then(outcome)


def discard(outcome: Outcome) -> None:
    """Give up an outcome's response."""
    if outcome.ticket is not None:
        outcome.ticket.release()


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` (0 to 100) of `values` don't exceed, by nearest rank.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a percentile of no values: no call has ended yet")
    rank = math.ceil(percent / 100.0 * len(values))
    return sorted(values)[max(rank, 1) - 1]
