"""Driving a flow by hand: small routes, and a driver that answers one effect at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshlib.call.call import Call
from meshlib.call.effects import Backoff, Effect, Failure, Outcome, Race, Send
from meshlib.call.flow import call_flow
from meshlib.plan.cluster import Cluster
from meshlib.plan.route import RoutePlan, Split
from meshlib.policy.balance import Picker, RoundRobin
from meshlib.state.cluster import ClusterState
from meshlib.state.endpoint import EndpointState
from meshlib.testing.clock import ManualClock


def cluster(endpoints: int = 3, *, kind: type[Picker] = RoundRobin, **policy: Any) -> Cluster:
    states = [EndpointState("10.0.0.1", 8001 + number, 0.0) for number in range(endpoints)]
    picker = kind(states, [1] * endpoints, [True] * endpoints, lambda: 0.0)
    return Cluster("reviews", "reviews", "", {}, picker, ClusterState("reviews"), **policy)


def route(to: Cluster, **rules: Any) -> RoutePlan:
    return RoutePlan("default", "reviews", split=Split((to,), (1,), (1,), (None,)), **rules)


def ok() -> Outcome:
    return Outcome(200, response=object())


def status(code: int, **more: Any) -> Outcome:
    return Outcome(code, response=object(), **more)


def failed(failure: Failure = Failure.RESET, *, sent: bool = True) -> Outcome:
    return Outcome(failure=failure, sent=sent)


class Hand:
    """One call driven by hand. After it has ended, `result` is its outcome.

    A response that the flow gives up is released, as the drivers do.
    """

    def __init__(
        self, rule: RoutePlan, clock: ManualClock, *, random: Callable[[], float] = lambda: 0.5, **call: Any
    ) -> None:
        self.clock = clock
        self.call = Call("reviews", clock(), **call)
        self.flow = call_flow(rule, self.call, clock, random)
        self.effect: Effect | None = None
        self.result: Outcome | None = None
        self.answer(None)

    def answer(self, outcome: Outcome | None, after: float = 0.0) -> Hand:
        """Answer the effect it waits for, so many seconds later."""
        self.clock.advance(after)
        try:
            self.effect = self.flow.send(outcome)
        except StopIteration as end:
            self.effect, self.result = None, end.value
        else:
            if isinstance(self.effect, Backoff) and self.effect.discard is not None:
                release(self.effect.discard)
        return self

    def wait(self) -> Hand:
        """Let its backoff pass."""
        return self.answer(None, self.backoff.seconds)

    @property
    def send(self) -> Send:
        assert isinstance(self.effect, Send), self.effect
        return self.effect

    @property
    def backoff(self) -> Backoff:
        assert isinstance(self.effect, Backoff), self.effect
        return self.effect

    @property
    def race(self) -> Race:
        assert isinstance(self.effect, Race), self.effect
        return self.effect

    @property
    def outcome(self) -> Outcome:
        assert self.result is not None, self.effect
        return self.result

    def said(self) -> list[tuple[str, str]]:
        """The evidence's attempts as (kind, outcome)."""
        return [(attempt.kind, attempt.outcome) for attempt in self.call.evidence(self.clock()).attempts]


def release(outcome: Outcome) -> None:
    """The body has been read, or given up."""
    if outcome.ticket is not None:
        outcome.ticket.release()


def in_flight(to: Cluster) -> int:
    return sum(state.active for state in to.endpoints)
