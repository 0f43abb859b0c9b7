"""The check that ends every test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import eventually, eventually_async, leaks


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GRACE", 0.02)


def test_nothing_held_is_nothing_leaked() -> None:
    assert leaks.leaked(leaks.held()) == []


@pytest.mark.usefixtures("brief")
def test_an_open_socket_is_a_leak_that_is_shown() -> None:
    before = leaks.held()
    with socket.socket() as opened:
        (line,) = leaks.leaked(before)
        assert "a socket still open" in line
        assert repr(opened) in line
    assert leaks.leaked(before) == []


@pytest.mark.usefixtures("brief")
def test_a_running_thread_is_a_leak_that_is_named() -> None:
    before = leaks.held()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    thread.start()
    try:
        (line,) = leaks.leaked(before)
        assert "forgotten" in line
    finally:
        end.set()
        thread.join()


def test_a_thread_on_its_way_out_is_waited_for() -> None:
    before = leaks.held()
    end = threading.Event()
    threading.Thread(target=end.wait, args=(5,)).start()
    threading.Timer(0.01, end.set).start()
    assert leaks.leaked(before) == []


def test_a_task_of_the_library_that_outlives_the_program_is_a_leak() -> None:
    loop_of: dict[str, Any] = {}
    exec(compile("async def forgotten(sleep): await sleep(60)", leaks._PACKAGES[0] + "made_up.py", "exec"), loop_of)
    forgotten: Callable[..., Coroutine[Any, Any, None]] = loop_of["forgotten"]

    async def program() -> list[str]:
        task = asyncio.create_task(forgotten(asyncio.sleep))
        await asyncio.sleep(0)
        found = leaks.tasks_of_meshlib(asyncio.get_running_loop())
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return found

    (line,) = asyncio.run(program())
    assert "forgotten" in line


@given(st.integers())
def test_properties_are_checked_for_leaks_too(number: int) -> None:
    assert number == number  # noqa: PLR0124


@pytest.mark.anyio
async def test_an_asynchronous_test_leaves_nothing() -> None:
    await anyio.sleep(0.001)


def test_a_condition_that_comes_true_gives_its_value() -> None:
    values = iter([0, None, "here"])
    assert eventually(lambda: next(values)) == "here"
    values = iter([0, None, "here"])
    assert asyncio.run(eventually_async(lambda: next(values))) == "here"


def test_a_condition_that_stays_false_fails_with_its_last_value() -> None:
    with pytest.raises(AssertionError, match=r"within 0\.01 s; its last value was \[\]"):
        eventually(list, timeout=0.01)
