"""Every test ends with a look at what it left behind; see `tests.support.leaks`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support import leaks

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("meshlib", deadline=None)
hypothesis.settings.load_profile("meshlib")

INTEGRATION = Path(__file__).parent / "integration"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if INTEGRATION in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail the test after which a thread, a socket or a task of meshlib is left over."""
    tasks: list[str] = []
    runners: Any = asyncio.runners
    cancel_all_tasks = runners._cancel_all_tasks

    def note_and_cancel(loop: asyncio.AbstractEventLoop) -> None:
        tasks.extend(leaks.tasks_of_meshlib(loop))
        cancel_all_tasks(loop)

    # asyncio.run cancels what is left in silence: this is the one place to see it.
    runners._cancel_all_tasks = note_and_cancel
    before = leaks.held()
    yield
    runners._cancel_all_tasks = cancel_all_tasks
    left = tasks + leaks.leaked(before)
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)
