"""Registries between real processes, some of which die in the middle of a write."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

import meshlib
from meshlib.errors import RegistryError
from meshlib.registries import Instance, Registry, Update, open_registry
from meshlib.registries.sqlite import SQLiteRegistry
from tests.contract.documents import entry

PATIENCE = 30.0
WORKER = Path(__file__).with_name("registry_worker.py")
ROOTS = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(meshlib.__path__[0]).parent)])


@pytest.fixture(params=["sqlite", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/registry.db"
    (tmp_path / "mesh").mkdir()
    return f"file://{tmp_path}/mesh"


@pytest.fixture
def workers(url: str) -> Iterator[list[subprocess.Popen[str]]]:
    # Files are read when they have come to rest.
    pause = "0.01" if url.startswith("sqlite") else "1.5"
    started = [
        subprocess.Popen(
            [sys.executable, str(WORKER), url, str(port), pause],
            env={**os.environ, "PYTHONPATH": ROOTS},
            stdout=subprocess.PIPE,
            text=True,
        )
        for port in (1, 2, 3)
    ]
    yield started
    for worker in started:
        worker.kill()
        worker.wait()
        if worker.stdout is not None:
            worker.stdout.close()


def rounds(update: Update) -> dict[str, list[int]]:
    """For every worker the rounds of its left and its right document."""
    found: dict[str, list[int]] = {}
    for source in update.sources:
        (port,) = re.findall(r'(?:left|right)-(\d)"', source.text.decode())
        (number,) = re.findall(r"round-(\d+)", source.text.decode())
        found.setdefault(port, []).append(int(number))
    return found


async def until(registry: Registry, wanted: int, seconds: float = 0.0) -> Update:
    """Watch until `wanted` instances are there and `seconds` have passed; no update on the way may be torn."""
    begin = time.monotonic()
    async with asyncio.timeout(PATIENCE), aclosing(registry.watch()) as items:
        async for item in items:
            if isinstance(item, RegistryError):
                assert "locked" in str(item) or "does not exist" in str(item) or "is empty" in str(item), item
                continue
            for port, numbers in rounds(item).items():
                assert len(numbers) == 2, (port, numbers)
                assert numbers[0] == numbers[1], (port, numbers)
            if len(item.instances) == wanted and time.monotonic() - begin >= seconds:
                return item
    raise AssertionError("the watch ended")


def test_writers_that_are_killed_tear_nothing_lose_nothing_and_expire(
    url: str, workers: list[subprocess.Popen[str]]
) -> None:
    async def scenario() -> None:
        registry = open_registry(url)
        await until(registry, 3, seconds=1.0 if url.startswith("sqlite") else 0.0)
        last_said = {}
        for port, worker in ((1, workers[0]), (2, workers[1])):
            assert worker.stdout is not None
            first = await asyncio.to_thread(worker.stdout.readline)  # whoever has said nothing has promised nothing
            worker.kill()
            said, _ = await asyncio.to_thread(worker.communicate)
            last_said[str(port)] = int(f"{first}{said}".split()[-1])
        left = await until(registry, 1)
        assert [instance.port for instance in left.instances] == [3]
        seen = rounds(left)
        for port, said in last_said.items():
            assert seen[port][0] >= said
        await registry.aclose()

    asyncio.run(scenario())


def test_a_forked_child_uses_the_registry_its_parent_had_open(tmp_path: Path) -> None:
    registry = SQLiteRegistry(tmp_path / "registry.db")
    asyncio.run(registry.register(Instance("web", "127.0.0.1", 1)))
    asyncio.run(registry.snapshot())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(registry.register(Instance("web", "127.0.0.1", 2)))
            code = 0 if len(asyncio.run(registry.snapshot()).instances) == 2 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    asyncio.run(registry.apply([entry("one")]))
    update = asyncio.run(registry.snapshot())
    assert (len(update.instances), len(update.sources)) == (2, 1)
    asyncio.run(registry.aclose())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_who_may_not_write_is_told_so_and_can_still_read(scheme: str) -> None:
    # The directories of tmp_path are closed to everybody else.
    with tempfile.TemporaryDirectory() as directory:
        url = f"{scheme}://{directory}" + ("/registry.db" if scheme == "sqlite" else "")
        registry = open_registry(url)
        asyncio.run(registry.register(Instance("web", "127.0.0.1", 1)))
        asyncio.run(registry.aclose())
        for path in [Path(directory), *Path(directory).rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setuid(65534)
                code = _read_and_fail_to_register(open_registry(url))
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _read_and_fail_to_register(registry: Registry) -> int:
    if len(asyncio.run(registry.snapshot()).instances) != 1:
        return 2
    try:
        asyncio.run(registry.register(Instance("web", "127.0.0.1", 2)))
    except RegistryError as error:
        return 0 if "Permission denied" in str(error) and error.way_out else 3
    return 4
