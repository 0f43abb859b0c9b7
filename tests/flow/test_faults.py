from __future__ import annotations

import pytest

from meshlib.call.effects import Failure, LocalReply
from meshlib.plan.route import Fault
from meshlib.testing.clock import ManualClock
from tests.flow.hands import Hand, cluster, in_flight, ok, route


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


def test_a_delay_comes_before_the_attempt(clock: ManualClock) -> None:
    to = cluster()
    hand = Hand(route(to, fault=Fault(delay=2.0, delay_share=1.0)), clock)
    assert hand.backoff.seconds == 2.0
    assert in_flight(to) == 0
    hand.wait().answer(ok())
    assert hand.outcome.good


def test_an_abort_reaches_nobody_and_is_not_tried_again(clock: ManualClock) -> None:
    hand = Hand(route(cluster(), fault=Fault(abort_status=503, abort_share=1.0)), clock)
    assert hand.outcome.status == 503
    assert isinstance(hand.outcome.response, LocalReply)
    assert hand.outcome.response.body == b"fault filter abort"
    assert hand.said() == []


def test_a_delay_is_followed_by_an_abort_where_both_are_asked_for(clock: ManualClock) -> None:
    hand = Hand(route(cluster(), fault=Fault(2.0, 1.0, 418, 1.0)), clock)
    assert hand.wait().outcome.status == 418
    assert clock() == 102.0


@pytest.mark.parametrize(("draw", "struck"), [(0.0, True), (0.29, True), (0.3, False), (0.99, False)])
def test_each_strikes_its_share_of_calls(clock: ManualClock, draw: float, struck: bool) -> None:
    aborted = Hand(route(cluster(), fault=Fault(abort_status=503, abort_share=0.3)), clock, random=lambda: draw)
    assert (aborted.result is not None) is struck
    delayed = Hand(route(cluster(), fault=Fault(delay=1.0, delay_share=0.3)), clock, random=lambda: draw)
    assert (delayed.call.cluster is None) is struck


def test_a_delay_is_cut_short_by_the_deadline(clock: ManualClock) -> None:
    hand = Hand(route(cluster(), timeout=1.0, fault=Fault(delay=5.0, delay_share=1.0)), clock)
    assert hand.backoff.seconds == 1.0
    assert hand.wait().outcome.failure is Failure.DEADLINE
