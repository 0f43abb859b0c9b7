"""What travels from inbound to outbound."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading

import pytest

import meshlib
from meshlib.context import INHERITED, Inherited


def test_without_a_deadline_nothing_runs_out() -> None:
    assert meshlib.remaining() is None


def test_a_deadline_runs_out() -> None:
    with meshlib.deadline(1000):
        left = meshlib.remaining()
        assert left is not None
        assert 990 < left <= 1000
    assert meshlib.remaining() is None


def test_a_deadline_within_another_can_tighten_but_never_loosen() -> None:
    with meshlib.deadline(10):
        with meshlib.deadline(1000):
            loosened = meshlib.remaining()
        with meshlib.deadline(1):
            tightened = meshlib.remaining()
    assert loosened is not None
    assert loosened <= 10
    assert tightened is not None
    assert tightened <= 1


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_deadline_is_finite_and_doesnt_lie_behind(seconds: float) -> None:
    with pytest.raises(ValueError, match="finite number, 0 or above"), meshlib.deadline(seconds):
        pass


def test_what_remains_is_a_deadline_also_when_nothing_does() -> None:
    with meshlib.deadline(0), meshlib.deadline(meshlib.remaining() or 0.0):
        assert meshlib.remaining() == 0.0


def test_what_has_run_out_leaves_nothing() -> None:
    token = INHERITED.set(Inherited(deadline=0.0))
    try:
        assert meshlib.remaining() == 0.0
    finally:
        INHERITED.reset(token)


def test_a_priority_holds_inside_and_the_innermost_counts() -> None:
    with meshlib.priority("best-effort"):
        with meshlib.priority("critical"):
            assert INHERITED.get().priority == "critical"
        assert INHERITED.get().priority == "best-effort"
    assert INHERITED.get() == Inherited()


def test_a_priority_and_a_deadline_do_not_touch_each_other() -> None:
    with meshlib.deadline(1000), meshlib.priority("critical"):
        assert meshlib.remaining() is not None
        with meshlib.deadline(1):
            assert INHERITED.get().priority == "critical"


def test_there_is_no_other_priority() -> None:
    with pytest.raises(ValueError, match="'urgent'; one of critical, default, best-effort"):
        meshlib.priority("urgent").__enter__()  # type: ignore[arg-type]


def test_tasks_inherit_it_and_keep_it_apart() -> None:
    async def child(seconds: float) -> float | None:
        with meshlib.deadline(seconds):
            await asyncio.sleep(0)
            return meshlib.remaining()

    async def parent() -> list[float | None]:
        with meshlib.deadline(100):
            return await asyncio.gather(child(1), child(1000))

    short, long = asyncio.run(parent())
    assert short is not None
    assert short <= 1
    assert long is not None
    assert 1 < long <= 100


def test_a_thread_inherits_it_with_its_context() -> None:
    seen: list[float | None] = []
    with meshlib.deadline(5):
        context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(lambda: seen.append(meshlib.remaining()),))
    thread.start()
    thread.join()
    assert seen[0] is not None
