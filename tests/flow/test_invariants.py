"""Whatever comes back, in whatever order, whoever gives up: the accounts are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.call.call import Call
from meshlib.call.effects import Backoff, Effect, Failure, Flow, Outcome, Race, Send
from meshlib.call.flow import call_flow
from meshlib.plan.cluster import Cluster, HedgePolicy, Limits
from meshlib.plan.route import RoutePlan
from meshlib.policy.retry import RetryPolicy
from meshlib.state.breaker import BreakerPolicy
from meshlib.state.budget import BudgetPolicy
from meshlib.state.outlier import OutlierPolicy
from meshlib.testing.clock import ManualClock
from tests.flow.hands import cluster, in_flight, release, route

# Small numbers, so that a few steps are enough to open, to run out and to eject.
BREAKER = BreakerPolicy(minimum_calls=4, consecutive_failures=2, open_for=1.0)
BUDGET = BudgetPolicy(percent=20.0, min_per_second=0.1)
OUTLIER = OutlierPolicy(server_errors=2, max_percent=50.0)
LIMITS = Limits(requests=6, retries=2)
RETRY = RetryPolicy(2, "5xx,reset,connect-failure", per_try_timeout=0.7)


class Live:
    """A flow on its way and what it waits for: an answer, a pause, or the flows of its race."""

    def __init__(self, flow: Flow, started: Callable[[Send], None], ended: Callable[[Live, Outcome], None]) -> None:
        self.flow = flow
        self.started = started
        self.ended = ended
        self.effect: Effect | None = None
        self.racers: list[Live] = []

    def step(self, answer: Outcome | None) -> None:
        try:
            self.effect = self.flow.send(answer)
        except StopIteration as end:
            self.effect = None
            self.ended(self, end.value)
            return
        if isinstance(self.effect, Send):
            self.started(self.effect)
        elif isinstance(self.effect, Race):
            self.race(self.effect.first)
        elif self.effect.discard is not None:
            release(self.effect.discard)

    def race(self, flow: Flow) -> None:
        racer = Live(flow, self.started, self.won)
        self.racers.append(racer)
        racer.step(None)

    def won(self, racer: Live, outcome: Outcome) -> None:
        self.racers.remove(racer)
        if self.racers and not outcome.good:
            release(outcome)
            return
        self.cancel_racers()
        self.step(outcome)

    def hedge(self) -> None:
        if isinstance(self.effect, Race) and len(self.racers) == 1 and (second := self.effect.second()) is not None:
            self.race(second)

    def cancel_racers(self) -> None:
        for racer in self.racers:
            racer.cancel()
        self.racers.clear()

    def cancel(self) -> None:
        self.cancel_racers()
        self.flow.close()

    def waiting(self) -> Iterator[Live]:
        """Whoever waits for an answer or a pause."""
        if isinstance(self.effect, Send | Backoff):
            yield self
        for racer in self.racers:
            yield from racer.waiting()


class World:
    """Calls beside each other through one cluster that has everything, and the checks after every step."""

    def __init__(self, hedged: bool) -> None:
        hedge = HedgePolicy(delay=0.05, budget=BudgetPolicy(50.0, 0.0)) if hedged else None
        self.clock = ManualClock()
        self.to: Cluster = cluster(4, breaker=BREAKER, budget=BUDGET, outlier=OUTLIER, limits=LIMITS, hedge=hedge)
        self.rule: RoutePlan = route(self.to, retry=RETRY, timeout=2.0)
        self.lives: list[tuple[Call, Live]] = []
        self.bodies: list[Outcome] = []

    def call(self, idempotent: bool) -> None:
        call = Call("reviews", self.clock(), idempotent=idempotent)
        sent: list[Send] = []

        def started(send: Send) -> None:
            sent.append(send)
            assert call.deadline is not None
            assert self.clock() < call.deadline, "sent after the deadline"
            assert send.expires is not None
            assert send.expires <= call.deadline
            assert len(sent) <= 1 + RETRY.attempts + (self.to.hedge is not None)

        def ended(_: Live, outcome: Outcome) -> None:
            self.lives.remove((call, live))
            self.bodies.append(outcome)

        live = Live(call_flow(self.rule, call, self.clock, lambda: 0.5), started, ended)
        self.lives.append((call, live))
        live.step(None)

    def waiting(self) -> list[Live]:
        return [one for _, live in self.lives for one in live.waiting()]

    def check(self) -> None:
        state = self.to.state
        sends = sum(isinstance(one.effect, Send) for one in self.waiting())
        bodies = sum(outcome.ticket is not None and not outcome.ticket.released for outcome in self.bodies)
        assert in_flight(self.to) == state.requests.inside == sends + bodies
        assert all(endpoint.active >= 0 for endpoint in self.to.endpoints)
        assert state.requests.inside <= 6
        assert 0 <= state.retries.inside <= 2
        assert state.budget.balance(BUDGET, self.clock()) >= 0.0
        assert sum(endpoint.ejected_until > self.clock() for endpoint in self.to.endpoints) <= 2

    def end(self) -> None:
        """Cancel what runs and read what is left; then nothing is in flight, and no probe is lost."""
        for _, live in self.lives:
            live.cancel()
        self.lives.clear()
        for outcome in self.bodies:
            release(outcome)
        self.check()
        assert in_flight(self.to) == 0
        assert self.to.state.retries.inside == 0
        assert self.to.state.breaker.admit(BREAKER, self.clock() + BREAKER.max_open_for) is not None


OUTCOMES: list[Callable[[], Outcome]] = [
    lambda: Outcome(200, response=object()),
    lambda: Outcome(404, response=object()),
    lambda: Outcome(503, response=object()),
    lambda: Outcome(503, response=object(), retry_after=0.2),
    lambda: Outcome(failure=Failure.CONNECT, sent=False),
    lambda: Outcome(failure=Failure.RESET),
    lambda: Outcome(failure=Failure.TIMEOUT),
]

STEPS = st.one_of(
    st.tuples(st.just("call"), st.booleans()),
    st.tuples(st.just("answer"), st.integers(0, 9), st.sampled_from(OUTCOMES)),
    st.tuples(st.just("hedge"), st.integers(0, 9)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("read"), st.integers(0, 9)),
    st.tuples(st.just("advance"), st.floats(0.0, 6.0)),
)


def take(world: World, step: tuple[object, ...]) -> None:
    match step:
        case ("call", bool(idempotent)):
            world.call(idempotent)
        case ("answer", int(index), make) if waiting := world.waiting():
            one = waiting[index % len(waiting)]
            one.step(make() if isinstance(one.effect, Send) else None)  # type: ignore[operator]
        case ("hedge", int(index)) if world.lives:
            world.lives[index % len(world.lives)][1].hedge()
        case ("cancel", int(index)) if world.lives:
            world.lives.pop(index % len(world.lives))[1].cancel()
        case ("read", int(index)) if world.bodies:
            release(world.bodies.pop(index % len(world.bodies)))
        case ("advance", float(seconds)):
            world.clock.advance(seconds)


@pytest.mark.parametrize("examples", [50, pytest.param(300, marks=pytest.mark.slow)])
def test_the_accounts_are_right_after_every_step_and_closed_at_rest(examples: int) -> None:
    @settings(max_examples=examples)
    @given(hedged=st.booleans(), steps=st.lists(STEPS, min_size=20, max_size=80))
    def check(hedged: bool, steps: list[tuple[object, ...]]) -> None:
        world = World(hedged)
        for step in steps:
            take(world, step)
            world.check()
        world.end()

    check()
