from __future__ import annotations

from collections.abc import Iterator
from random import Random
from threading import Thread

import pytest

from meshlib.state.adaptive import AdaptiveBounds
from meshlib.state.load import PlaceBounds, Places, Waiter

CRITICAL, DEFAULT, BEST_EFFORT = range(3)
ONE = PlaceBounds(most=1, pending=3, wait=1.0)


def queued(places: Places, level: int, now: float = 0.0, bounds: PlaceBounds = ONE) -> Waiter:
    waiter = places.enter(level, now, bounds, bounds.wait)
    assert isinstance(waiter, Waiter)
    return waiter


def full(bounds: PlaceBounds = ONE) -> Places:
    """Places of which none is free."""
    places = Places()
    for inside in range(1, bounds.most + 1):
        assert places.enter(DEFAULT, 0.0, bounds, 0.0) == inside
    return places


def test_so_many_come_in_and_no_more() -> None:
    places = full()
    assert places.enter(CRITICAL, 0.0, ONE, 0.0) == 0
    assert places.enter_free(ONE) == 0
    assert not places.leave()
    assert places.enter_free(ONE) == 1


def test_a_place_goes_to_the_most_important_and_among_these_to_the_eldest() -> None:
    places = full()
    waiters = [queued(places, level) for level in (BEST_EFFORT, DEFAULT, DEFAULT)]
    assert places.leave()
    assert not places.give(0.5, 10)
    assert [waiter.granted for waiter in waiters] == [False, True, False]
    assert places.settle(waiters[1], 0.5) == 1


def test_nobody_of_less_or_equal_importance_overtakes_who_waits_and_the_more_important_do() -> None:
    places = full(ONE._replace(most=2))
    queued(places, DEFAULT, bounds=ONE._replace(most=2))
    places.leave()
    more = ONE._replace(most=2)
    assert places.enter_free(more) == 0
    assert isinstance(places.enter(BEST_EFFORT, 0.0, more, 1.0), Waiter)
    assert places.enter(CRITICAL, 0.0, more, 1.0) == 2


def test_after_a_queue_as_old_as_a_request_may_wait_the_newest_goes_first() -> None:
    bounds = ONE._replace(pending=10)
    places = full(bounds)
    queued(places, DEFAULT, 0.0, bounds)
    elder, newer = queued(places, DEFAULT, 0.9, bounds), queued(places, DEFAULT, 1.0, bounds)
    places.leave()
    places.give(1.1, 1)
    assert (elder.granted, newer.granted) == (False, True)


def test_a_full_queue_turns_its_least_important_away_for_somebody_more_important() -> None:
    places, woken = full(), list[str]()
    default, first, second = queued(places, DEFAULT), queued(places, BEST_EFFORT), queued(places, BEST_EFFORT)
    second.wake = lambda: woken.append("second")
    assert isinstance(places.enter(CRITICAL, 0.0, ONE, 1.0), Waiter)
    assert (second.over, second.granted, woken) == (True, False, ["second"])
    assert [default.over, first.over] == [False, False]
    assert places.enter(BEST_EFFORT, 0.0, ONE, 1.0) == 0
    assert places.waiting == 3


def test_a_full_queue_of_equals_takes_nobody_more() -> None:
    places = full()
    for _ in range(3):
        queued(places, DEFAULT)
    assert places.enter(DEFAULT, 0.0, ONE, 1.0) == 0


def test_who_is_over_his_time_gets_no_place() -> None:
    places = full()
    late, other = queued(places, CRITICAL, 0.0), queued(places, DEFAULT, 0.9)
    places.leave()
    places.give(1.5, 10)
    assert (late.over, late.granted) == (True, False)
    assert other.granted


def test_who_waits_no_longer_leaves_nothing_behind() -> None:
    places = full()
    waiter = queued(places, DEFAULT)
    assert places.settle(waiter, 0.5) == 0
    assert (places.waiting, waiter.over) == (0, True)
    assert not places.leave()


def test_who_gave_up_at_the_moment_of_getting_a_place_has_it_and_can_pass_it_on() -> None:
    places = full()
    first, second = queued(places, DEFAULT), queued(places, DEFAULT)
    places.leave()
    places.give(0.1, 1)
    assert places.settle(first, 0.1) == 1
    assert places.leave()
    places.give(0.1, 1)
    assert second.granted


def test_somebody_may_be_held_before_a_free_place() -> None:
    places = Places()
    waiter = places.enter(DEFAULT, 0.0, ONE, 1.0, hold=True)
    assert isinstance(waiter, Waiter)
    assert not places.give(0.0, 1)
    assert waiter.granted


def test_only_so_many_are_let_in_at_one_turn_and_it_says_that_there_are_more() -> None:
    bounds = ONE._replace(most=3, pending=10)
    places = Places()
    waiters = [places.enter(DEFAULT, 0.0, bounds, 1.0, hold=True) for _ in range(3)]
    assert places.give(0.0, 2)
    assert [isinstance(waiter, Waiter) and waiter.granted for waiter in waiters] == [True, True, False]


def test_queue_time_is_of_one_priority_and_those_above_it_and_fades() -> None:
    places = full(ONE._replace(pending=100))
    for _ in range(30):
        waiter = queued(places, DEFAULT, 0.0)
        places.settle(waiter, 0.4)
    assert places.queue_time(CRITICAL, 0.4) == 0.0
    assert places.queue_time(DEFAULT, 0.4) == pytest.approx(0.4, rel=0.01)
    assert places.queue_time(BEST_EFFORT, 0.4) == places.queue_time(DEFAULT, 0.4)
    assert places.queue_time(DEFAULT, 1.4) == pytest.approx(0.2, rel=0.01)


def test_the_bounds_are_those_of_the_plan_that_came_last() -> None:
    places = full()
    waiter = queued(places, DEFAULT)
    assert places.enter(CRITICAL, 0.0, ONE._replace(most=5), 1.0) == 2
    places.give(0.0, 10)
    assert waiter.granted


def steps(random: Random) -> Iterator[tuple[str, int]]:
    for _ in range(400):
        yield random.choice(["enter", "enter", "leave", "give", "settle"]), random.randrange(3)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_nobody_is_counted_twice_or_forgotten(seed: int) -> None:
    random, places, now = Random(seed), Places(), 0.0
    bounds = PlaceBounds(most=4, pending=6, wait=1.0)
    inside, waiting = 0, list[Waiter]()
    for what, level in steps(random):
        now += random.random() * 0.3
        if what == "enter":
            got = places.enter(level, now, bounds, 1.0, hold=random.random() < 0.1)
            if isinstance(got, Waiter):
                waiting.append(got)
            else:
                inside += got > 0
        elif what == "leave" and inside:
            inside -= 1
            places.leave()
        elif what == "give":
            places.give(now, random.randrange(1, 4))
        elif waiting:
            inside += places.settle(waiting.pop(random.randrange(len(waiting))), now) > 0
        granted = sum(waiter.granted for waiter in waiting)
        assert places.inside == inside + granted <= bounds.most
        assert places.waiting == sum(not waiter.over for waiter in waiting) <= bounds.pending


def test_threads_do_not_lose_a_place() -> None:
    places, bounds = Places(), PlaceBounds(most=3, pending=0)

    def come_and_go() -> None:
        for _ in range(500):
            if places.enter_free(bounds):
                places.leave()

    threads = [Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert places.inside == 0


def test_an_adaptive_limit_stays_below_the_fixed_one() -> None:
    places = Places()
    places.bounds = PlaceBounds(most=7, adaptive=AdaptiveBounds(2, 100, 20))
    assert places.limit == 7
