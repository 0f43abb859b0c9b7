"""The first plan isn't in force before there is an identity to live by it, or none is to be had in time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from meshlib import Mesh
from meshlib.errors import IdentityError
from meshlib.identity.material import Material
from meshlib.testing.memory import MemoryRegistry
from tests.support import eventually

URL = "files:///nowhere"


class Late:
    """A source that says nothing until it is let."""

    url = URL

    def __init__(self) -> None:
        self.let = threading.Event()

    async def watch(self) -> AsyncGenerator[Material | IdentityError, None]:
        while not self.let.is_set():  # noqa: ASYNC110 - the test is on another thread
            await asyncio.sleep(0.001)
        yield IdentityError(URL, "none is to be had")
        await asyncio.sleep(3600)

    async def aclose(self) -> None: ...


@pytest.fixture
def late() -> Late:
    return Late()


@pytest.fixture
def mesh(tmp_path: Path, late: Late) -> Mesh:
    mesh = Mesh(MemoryRegistry(), identity=URL, state_dir=tmp_path)
    assert mesh.identity is not None
    mesh.identity._make_source = lambda: late
    return mesh


def test_a_call_beside_the_first_one_waits_for_the_certificate_too(mesh: Mesh, late: Late) -> None:
    first = threading.Thread(target=mesh.open)
    first.start()
    eventually(lambda: mesh._held is not None)
    assert mesh.plan is None, "the next call would go by it at once"
    late.let.set()
    first.join()
    assert mesh.plan is not None
    mesh.close()


def test_the_plan_is_in_force_then_though_nobody_waits_for_it(mesh: Mesh, late: Late) -> None:
    mesh._started()
    eventually(lambda: mesh._held is not None)
    assert mesh.plan is None
    late.let.set()
    eventually(lambda: mesh.plan is not None)
    mesh.close()


def test_a_certificate_that_does_not_come_is_not_waited_for_for_ever(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshlib.running.OPEN_WAIT", 0.05)
    mesh._started()
    eventually(lambda: mesh.plan is not None)
    mesh.close()
