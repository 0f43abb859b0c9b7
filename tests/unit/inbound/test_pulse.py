from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from threading import Thread

import pytest

from meshlib.inbound.effects import Queue
from meshlib.inbound.pulse import INTERVAL, SLICE, LoopPulse, pulse_here, wait_in_queue
from meshlib.state.load import Waiter
from meshlib.testing.clock import ManualClock


class Turns:
    """A loop by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock(10.0)
        self.ready: list[Callable[[], object]] = []
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.pulse = LoopPulse(self.ready.append, lambda seconds, call: self.timers.append((seconds, call)), self.clock)
        self.given: list[int] = []

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            ready, self.ready[:] = list(self.ready), []
            for call in ready:
                call()

    def look(self, late: float) -> None:
        [(seconds, call)] = self.timers
        self.timers.clear()
        self.clock.advance(seconds + late)
        call()

    def give(self, now: float, most: int) -> bool:
        self.given.append(most)
        return False


def test_a_turn_is_spent_when_requests_took_longer_than_a_slice() -> None:
    turns = Turns()
    assert not turns.pulse.spent(turns.clock())
    turns.pulse.begin(turns.clock())
    assert not turns.pulse.spent(turns.clock.advance(SLICE / 2))
    assert turns.pulse.spent(turns.clock.advance(SLICE))
    turns.turn()
    assert not turns.pulse.spent(turns.clock())


def test_places_are_given_when_the_loop_has_looked_and_tasks_have_begun() -> None:
    turns = Turns()
    turns.pulse.soon(turns.give)
    turns.pulse.soon(turns.give)
    turns.turn(2)
    assert turns.given == []
    turns.turn()
    assert len(turns.given) == 1
    turns.turn(5)
    assert len(turns.given) == 1
    assert turns.ready == []


def test_a_busy_turn_has_the_loop_look_anew() -> None:
    turns = Turns()
    turns.pulse.soon(turns.give)
    turns.turn(2)
    turns.pulse.begin(turns.clock())
    turns.clock.advance(SLICE * 5)
    turns.turn(2)
    assert turns.given == []
    turns.turn(2)
    assert turns.given == [1]


def test_more_are_let_in_at_one_turn_while_turns_stay_short() -> None:
    turns = Turns()
    for _ in range(4):
        turns.pulse.begin(turns.clock())
        turns.pulse.soon(turns.give)
        turns.turn(4)
    assert turns.given == sorted(turns.given)
    assert turns.given[-1] > turns.given[0]


def test_lag_is_smoothed_and_measured_only_while_requests_come() -> None:
    turns = Turns()
    turns.pulse.watch()
    turns.pulse.watch()
    assert [seconds for seconds, _ in turns.timers] == [INTERVAL]
    turns.pulse.watch()
    turns.look(0.1)
    assert turns.pulse.lag == pytest.approx(0.03)
    turns.pulse.watch()
    turns.look(0.1)
    assert turns.pulse.lag == pytest.approx(0.051)
    turns.look(0.0)  # nobody came since
    assert (turns.pulse.lag, turns.timers) == (0.0, [])


def test_a_loop_has_one_pulse_and_a_thread_none() -> None:
    async def twice() -> tuple[LoopPulse | None, LoopPulse | None]:
        return pulse_here(), pulse_here()

    first, second = asyncio.run(twice())
    assert first is not None
    assert first is second
    assert pulse_here() is None


def test_two_loops_in_turn_have_two_pulses() -> None:
    async def here() -> LoopPulse | None:
        return pulse_here()

    assert asyncio.run(here()) is not asyncio.run(here())


def test_a_real_loop_that_is_held_up_is_late() -> None:
    async def main() -> float:
        pulse = pulse_here()
        assert pulse is not None
        measured = asyncio.get_running_loop().create_future()
        pulse.watch()
        pulse.watch()
        asyncio.get_running_loop().call_soon(hold_up)
        asyncio.get_running_loop().call_later(INTERVAL * 1.1, lambda: measured.set_result(pulse.lag))
        lag: float = await measured
        return lag

    def hold_up() -> None:
        time.sleep(INTERVAL * 3)

    assert asyncio.run(main()) >= INTERVAL * 0.5


def waiter() -> Waiter:
    return Waiter(1, 0.0, 1e9)


class Wakeable(Waiter):
    """A waiter that says when somebody waits."""

    __slots__ = ("came",)

    def __init__(self, came: Callable[[], object]) -> None:
        super().__init__(1, 0.0, 1e9)
        self.came = came

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "wake" and value is not None:
            self.came()


def wake(one: Waiter) -> None:
    assert one.wake is not None
    one.wake()


def wake_elsewhere(one: Waiter) -> None:
    thread = Thread(target=wake, args=(one,))
    thread.start()
    thread.join()


@pytest.mark.parametrize("by", [wake, wake_elsewhere])
def test_who_waits_is_woken_on_its_loop_and_from_other_threads(by: Callable[[Waiter], object]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        one: Waiter = Wakeable(lambda: loop.call_soon(by, one))
        await asyncio.wait_for(wait_in_queue(Queue(one, 60.0)), 10.0)

    asyncio.run(main())


def test_who_is_decided_about_before_he_waits_does_not_wait() -> None:
    one = waiter()
    one.over = True
    asyncio.run(asyncio.wait_for(wait_in_queue(Queue(one, 60.0)), 10.0))


def test_nobody_waits_for_longer_than_he_may() -> None:
    asyncio.run(asyncio.wait_for(wait_in_queue(Queue(waiter(), 0.001)), 10.0))


def test_who_is_cancelled_waits_no_longer_and_may_be_woken_all_the_same() -> None:
    async def main() -> None:
        one: Waiter = Wakeable(lambda: asyncio.get_running_loop().call_soon(task.cancel))
        task = asyncio.ensure_future(wait_in_queue(Queue(one, 60.0)))
        with pytest.raises(asyncio.CancelledError):
            await task
        wake(one)

    asyncio.run(main())


def test_who_was_forgotten_with_his_loop_is_in_nobodys_way() -> None:
    one = waiter()
    loop = asyncio.new_event_loop()
    task = loop.create_task(wait_in_queue(Queue(one, 60.0)))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    wake(one)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # that is what is tried here


def test_trio_has_a_pulse_and_a_queue_as_well() -> None:
    trio = pytest.importorskip("trio")
    given: list[int] = []

    async def main() -> None:
        pulse = pulse_here()
        assert pulse is not None
        assert pulse_here() is pulse
        looked = trio.Event()

        def give(now: float, most: int) -> bool:
            given.append(most)
            looked.set()
            return False

        pulse.watch()
        pulse.soon(give)
        one: Waiter = Wakeable(lambda: trio.lowlevel.current_trio_token().run_sync_soon(wake, one))
        with trio.fail_after(10):
            await wait_in_queue(Queue(one, 60.0))
            await looked.wait()

    trio.run(main)
    assert len(given) == 1
