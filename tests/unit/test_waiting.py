"""Waiting in threads and in coroutines, on either kind of event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections.abc import Awaitable, Callable

import anyio
import pytest

from meshlib.waiting import Changes, Flag, trio_here
from meshlib.wire.spawn import spawner

LONG = 30.0
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def test_a_thread_that_waits_goes_on_when_the_flag_is_set() -> None:
    flag, came = Flag(), []
    thread = threading.Thread(target=lambda: came.append(flag.wait(LONG)))
    thread.start()
    flag.set()
    thread.join(LONG)
    assert came == [True]


@BACKENDS
def test_coroutines_that_wait_go_on_when_another_thread_sets_the_flag(backend: str) -> None:
    flag, came = Flag(), []

    async def one() -> None:
        came.append(await flag.sleep(LONG))

    async def main() -> None:
        with anyio.fail_after(LONG):
            async with anyio.create_task_group() as group:
                for _ in range(100):
                    group.start_soon(one)
                await _until(lambda: len(flag._sleepers) == 100)
                assert threading.active_count() == before, "nobody who waits holds a thread"
                threading.Thread(target=flag.set).start()

    before = threading.active_count()
    anyio.run(main, backend=backend)
    assert came == [True] * 100


@BACKENDS
def test_who_waits_for_more_than_has_come_about_goes_on_waiting(backend: str) -> None:
    changes, count, found = Changes(), [0], []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(tell)
            found.append(await changes.sleep_until(lambda: count[0] == 3, LONG))

    async def tell() -> None:
        for _ in range(3):
            await _until(lambda: len(changes._sleepers) == 1)
            count[0] += 1
            changes.tell()

    anyio.run(main, backend=backend)
    assert found == [True]


@BACKENDS
def test_a_wait_ends_with_its_time_and_leaves_nothing(backend: str) -> None:
    flag = Flag()
    assert not flag.wait(0.01)
    assert not anyio.run(flag.sleep, 0.01, backend=backend)
    assert not flag._sleepers


@BACKENDS
def test_a_wait_that_is_cancelled_leaves_nothing(backend: str) -> None:
    flag = Flag()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(flag.sleep, LONG)
            await _until(lambda: bool(flag._sleepers))
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert not flag._sleepers


def test_a_loop_that_ended_while_somebody_waited_keeps_nobody_from_hearing() -> None:
    flag = Flag()
    loop = asyncio.new_event_loop()
    waiting = flag.sleep(LONG)
    task = loop.create_task(_as_coroutine(waiting))
    loop.run_until_complete(asyncio.sleep(0.001))
    assert flag._sleepers
    thread = threading.Thread(target=flag.wait, args=(LONG,))
    thread.start()
    sleepers = set(flag._sleepers)
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    flag._sleepers |= sleepers  # as when the loop was torn down without cancelling
    flag.set()
    thread.join(LONG)
    assert not thread.is_alive()


def test_trio_of_which_only_a_part_is_there_is_not_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread is importing it."""
    monkeypatch.setitem(sys.modules, "trio", types.ModuleType("trio"))

    async def main() -> bool:
        assert trio_here() is None
        spawner()
        flag = Flag()
        threading.Timer(0.01, flag.set).start()
        return await flag.sleep(LONG)

    assert asyncio.run(main())


async def _as_coroutine(awaitable: Awaitable[object]) -> object:
    return await awaitable


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        await anyio.lowlevel.checkpoint()
