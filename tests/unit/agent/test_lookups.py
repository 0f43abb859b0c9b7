"""The first call to a service asks the registry for it, and waits for its word."""

from __future__ import annotations

import threading
import time
import types
from collections.abc import Iterable
from typing import Any, cast

import pytest

from meshlib.agent import lookups
from meshlib.agent.lookups import Lookups
from meshlib.plan.plan import Plan

REVIEWS = "reviews.default.svc.cluster.local"


def plan_of(*asked: str, wanted: Iterable[str] = ()) -> Plan:
    return Plan("test", {}, (), {}, asked=frozenset(asked), wanted=frozenset(wanted))


class Agent:
    """Answers each question with the next of `plans`, on a thread of its own."""

    def __init__(self, *plans: Plan) -> None:
        self.plan = plan_of()
        self.asked: list[str] = []
        self.lookups = Lookups(lambda: self.plan)
        self._plans = plans

    def ask(self, names: Iterable[str]) -> None:
        self.asked += names
        threading.Thread(target=self._answer).start()

    def _answer(self) -> None:
        for plan in self._plans:
            self.plan = plan
            self.lookups.published()

    def look_up(self, *, trouble: bool = False) -> float:
        began = time.monotonic()
        self.lookups.wait(REVIEWS, self.ask, lambda: trouble)
        return time.monotonic() - began


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "LOOKUP_WAIT", 0.2)
    monkeypatch.setattr(lookups, "TROUBLE_WAIT", 0.05)


def test_a_lookup_ends_when_the_plan_speaks_of_the_service() -> None:
    agent = Agent(plan_of("other"), plan_of("other", REVIEWS))
    agent.look_up()
    assert agent.asked == [REVIEWS]
    assert agent.plan.unasked("reviews") is None


def test_a_lookup_waits_for_what_the_routes_of_the_service_lead_to() -> None:
    agent = Agent(plan_of(REVIEWS, wanted=["ratings"]), plan_of(REVIEWS, "ratings"))
    agent.look_up()
    assert not agent.plan.wanted


@pytest.mark.usefixtures("short")
def test_a_registry_that_says_nothing_is_waited_for_once_and_then_not_for_a_while() -> None:
    agent = Agent()
    assert agent.look_up() >= 0.2
    assert agent.look_up() < 0.2
    assert agent.asked == [REVIEWS]


@pytest.mark.usefixtures("short")
def test_a_registry_in_trouble_is_waited_for_too_but_not_as_long() -> None:
    agent = Agent()
    waited = agent.look_up(trouble=True)
    assert 0.05 <= waited < 0.2


def test_strangers_who_choose_the_hosts_of_calls_dont_have_the_registry_watch_them_all(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(lookups, "time", types.SimpleNamespace(monotonic=lambda: now))
    known = {REVIEWS: object()}
    asked: list[str] = []
    plan = plan_of()

    def ask(names: Iterable[str]) -> None:
        nonlocal plan
        asked.extend(names)
        plan = Plan("test", cast("Any", known), (), {}, asked=frozenset(asked))

    found = Lookups(lambda: plan)
    for number in range(lookups.MOST_NOBODY):
        found.wait(f"n{number}.default.svc.cluster.local", ask, lambda: False)
        found.wait(REVIEWS, ask, lambda: False)  # is somebody, and doesn't count
    for number in range(1000):
        found.wait(f"m{number}.default.svc.cluster.local", ask, lambda: False)
    assert len(set(asked)) == lookups.MOST_NOBODY + 1
    assert len(caplog.records) == 1
    now += lookups.NOBODY_WITHIN
    found.wait("later.default.svc.cluster.local", ask, lambda: False)
    assert asked[-1].startswith("later")


@pytest.mark.parametrize("host", ["reviews", "reviews.default.svc", "reviews.service.consul"])
def test_a_host_that_may_be_a_service_is_unasked_until_it_was_asked_for(host: str) -> None:
    assert plan_of().unasked(host) is not None
    assert plan_of(REVIEWS).unasked(host) is None


@pytest.mark.parametrize("host", ["api.example.com", "10.0.0.5", "localhost"])
def test_a_host_that_can_be_no_service_is_never_asked_for(host: str) -> None:
    assert plan_of().unasked(host) is None


def test_a_registry_that_tells_of_everything_is_asked_for_nothing() -> None:
    assert Plan("test", {}, (), {}).unasked("reviews") is None


def test_a_crowd_that_calls_one_new_service_is_no_flood_of_names() -> None:
    agent = Agent(plan_of("other"), plan_of("other", REVIEWS))
    calls = [agent.lookups._waits(REVIEWS, agent.asked.extend, lambda: False) for _ in range(2 * lookups.MOST_NOBODY)]
    waiting = [next(iter(call), None) for call in calls]
    assert None not in waiting, "each of them waits for the answer"
