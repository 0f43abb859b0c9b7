"""Registries that go away, are damaged, locked and full while calls are made: none fails, and all heals by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import meshlib
from meshlib.agent.lastgood import LastGood
from meshlib.errors import RegistryError
from meshlib.registries import Update, open_registry
from meshlib.registries.lockfile import exclusive
from tests.integration.workers.fleet import Fleet, Load, Record, Worker, failures, load_on
from tests.support import eventually, eventually_async

RULE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  http:
  - route: [{{destination: {{host: reviews}}}}]
    headers: {{response: {{set: {{x-rule: {rule}}}}}}}
"""

PATIENCE = 30.0
RATE = 100.0
CALLS = 100
"""While something is wrong."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    (tmp_path / "registry").mkdir()
    fleet = Fleet(f"sqlite://{tmp_path}/registry/mesh.db", tmp_path / "state")
    try:
        yield fleet
    finally:
        fleet.end()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "registry" / "mesh.db"


async def read(url: str) -> Update:
    """What is in the registry now, as somebody sees it who has never seen it before."""
    registry = open_registry(url)
    try:
        return await registry.snapshot()
    finally:
        await registry.aclose()


async def restored(url: str, before: Update) -> None:
    """Wait until everybody and everything that was there `before` is there again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(RegistryError):
                if content(await read(url)) == content(before):
                    return
            await asyncio.sleep(0.05)


def content(update: Update) -> tuple[list[tuple[str, int]], list[bytes]]:
    return [(one.service, one.port) for one in update.instances], [source.text for source in update.sources]


@contextlib.contextmanager
def nobody_can_heal(database: Path) -> Iterator[None]:
    """Keep writers away, or a renewal would put the registry in order before anybody has seen it."""
    with exclusive(f"{database}.lock", PATIENCE):
        yield


@contextlib.contextmanager
def deleted(database: Path) -> Iterator[None]:
    with nobody_can_heal(database):
        database.unlink()
        yield


@contextlib.contextmanager
def rubbish(database: Path) -> Iterator[None]:
    with nobody_can_heal(database):
        database.write_bytes(random.Random(7).randbytes(database.stat().st_size))
        yield


@contextlib.contextmanager
def emptied(database: Path) -> Iterator[None]:
    with nobody_can_heal(database):
        os.truncate(database, 0)
        yield


@contextlib.contextmanager
def unreachable(database: Path) -> Iterator[None]:
    directory = database.parent
    elsewhere = directory.with_name("elsewhere")
    directory.rename(elsewhere)
    directory.write_text("a file where the directory was")
    yield
    directory.unlink()
    elsewhere.rename(directory)


@contextlib.contextmanager
def unreadable(database: Path) -> Iterator[None]:
    directory = database.parent
    mode = directory.stat().st_mode
    directory.chmod(0)
    try:
        yield
    finally:
        directory.chmod(mode)


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    locker = Worker("locker", str(database))
    assert locker.line() == "locked"
    try:
        yield
        time.sleep(3.0)  # this is how long it is locked
    finally:
        locker.end()


Trouble = Callable[[Path], contextlib.AbstractContextManager[None]]


def through_trouble(fleet: Fleet, trouble: Callable[[], contextlib.AbstractContextManager[None]]) -> list[Record]:
    """The calls made before, during and after the trouble; everything must be seen and heal on the way."""
    fleet.start("v1", "v1")
    fleet.apply(RULE.format(rule="one"))

    async def scenario(mesh: meshlib.Mesh, under_way: Load) -> None:
        await under_way.until_calls(50)
        before = await read(fleet.url)
        with trouble():
            await eventually_async(lambda: mesh.status().error or mesh.status().registration_error, PATIENCE)
            status = mesh.status()
            assert not status.ok
            assert fleet.url in status.error + status.registration_error
            assert status.error_age is not None or not status.error
            await under_way.until_calls(CALLS)
            assert mesh.status().version
        await eventually_async(lambda: mesh.status().ok, PATIENCE)
        assert (mesh.status().error, mesh.status().error_age) == ("", None)
        await restored(fleet.url, before)
        await under_way.until_calls(50)

    async def loaded() -> list[Record]:
        with meshlib.Mesh(fleet.url, service="web", state_dir=fleet.state_dir) as mesh:
            mesh.serve("127.0.0.1:9")
            await eventually_async(lambda: mesh.status().registered and mesh.status().endpoints == 3, PATIENCE)
            async with load_on(mesh, RATE) as under_way:
                await scenario(mesh, under_way)
            return under_way.records

    return asyncio.run(loaded())


FOR_ANYBODY_BUT_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read whatever it likes")


@pytest.mark.parametrize(
    "trouble",
    [deleted, rubbish, emptied, unreachable, pytest.param(unreadable, marks=FOR_ANYBODY_BUT_ROOT), locked],
)
def test_trouble_of_the_registry_fails_no_call_is_seen_and_heals_by_itself(
    fleet: Fleet, database: Path, trouble: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "meshlib")
    records = through_trouble(fleet, lambda: trouble(database))
    assert not failures(records)
    assert "the last good configuration stays in force" in caplog.text
    assert "the registry is back after" in caplog.text


def test_a_database_cut_in_half_fails_no_call_and_heals_by_itself(fleet: Fleet, database: Path) -> None:
    fleet.start("v1", "v1")
    fleet.apply(RULE.format(rule="one"))

    async def scenario() -> list[Record]:
        with fleet.mesh() as mesh:
            async with load_on(mesh, RATE) as under_way:
                before = await read(fleet.url)
                # SQLite may well not notice before somebody writes.
                os.truncate(database, os.stat(database).st_size // 2)
                await eventually_async(lambda: list(database.parent.glob("*.damaged-*")), PATIENCE)
                await restored(fleet.url, before)
                await eventually_async(lambda: mesh.status().ok, PATIENCE)
                await under_way.until_calls(CALLS)
            return under_way.records

    assert not failures(asyncio.run(scenario()))


def test_a_full_disk_fails_no_call_expires_nobody_and_heals_by_itself(
    fleet: Fleet, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(database.parent)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can't be mounted here")

    @contextlib.contextmanager
    def full() -> Iterator[None]:
        filling = database.parent / "filling"
        with open(filling, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        yield
        filling.unlink()

    try:
        records = through_trouble(fleet, full)
        fleet.end()
    finally:
        subprocess.run(["umount", "-l", str(database.parent)], check=True)
    assert not failures(records)
    assert "the disk" in caplog.text


@pytest.mark.parametrize("trouble", [deleted, rubbish, locked])
def test_a_process_that_starts_while_the_registry_is_away_uses_the_last_good_configuration(
    fleet: Fleet, database: Path, trouble: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.start("v1")
    fleet.apply(RULE.format(rule="one"))
    fleet.mesh().close()
    caplog.set_level("INFO", "meshlib")
    caplog.clear()
    with trouble(database), meshlib.Mesh(fleet.url, state_dir=fleet.state_dir) as mesh:
        status = mesh.status()
        assert f".json: {fleet.url}" in caplog.text, "the log says why it starts with what is on disk"
        assert "the registry is back" not in caplog.text
        assert status.source == "disk"
        assert fleet.url in status.error
        with httpx.Client(transport=mesh.transport()) as client:
            assert client.get("http://reviews/").headers["x-rule"] == "one"


def test_a_last_good_configuration_with_a_flipped_bit_is_refused(
    fleet: Fleet, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.start("v1")
    fleet.mesh().close()
    kept = LastGood(fleet.state_dir, fleet.url, "default").path
    damaged = bytearray(kept.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    kept.write_bytes(damaged)
    with deleted(database), meshlib.Mesh(fleet.url, state_dir=fleet.state_dir) as mesh:
        assert (mesh.status().source, mesh.status().endpoints) == ("none", 0)
        assert f"{kept} can't be used: its checksum is wrong" in caplog.text


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = tmp_path / "mesh"
    found.mkdir()
    return found


@pytest.fixture
def served(tmp_path: Path, directory: Path) -> Iterator[Fleet]:
    """Give a fleet of one whose registry is a directory of files."""
    fleet = Fleet(f"file://{directory}", tmp_path / "state")
    try:
        fleet.start("v1")
        yield fleet
    finally:
        fleet.end()


def replace(path: Path, text: str) -> None:
    """Put `text` in the place of a file, as an editor or a deployment does."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(text)
    beside.replace(path)


NO_YAML = "kind: [VirtualService\n"
NO_RULE = (
    RULE.format(rule="two").replace("route: [", "timeout: soon\n    route: [") + "---\n" + RULE.format(rule="three")
)


def test_files_that_are_wrong_leave_the_old_in_force_and_are_named(served: Fleet, directory: Path) -> None:
    file = directory / "rules.yaml"
    replace(file, RULE.format(rule="one"))
    with served.mesh() as mesh, httpx.Client(transport=mesh.transport()) as client:

        def rule() -> str:
            response = client.get("http://reviews/")
            assert response.status_code == 200
            return str(response.headers.get("x-rule"))

        eventually(lambda: rule() == "one")
        for wrong, named in (
            (NO_YAML, ("document 1, line 2", "not YAML")),
            (NO_RULE, ("document 1", "spec.http[0].timeout", "soon")),
        ):
            replace(file, wrong)
            eventually(lambda: all(name in mesh.status().error for name in (str(file), *named)))  # noqa: B023
            assert mesh.status().error_age is not None
            assert rule() == "one"
        replace(file, RULE.format(rule="two"))
        eventually(lambda: rule() == "two")
        assert mesh.status().ok


def test_a_swapped_symbolic_link_is_in_force_as_a_change_of_its_files(served: Fleet, directory: Path) -> None:
    """So that a ConfigMap mounted by Kubernetes can be the registry."""
    for version in ("one", "two"):
        (directory / f"..{version}").mkdir()
        (directory / f"..{version}" / "rules.yaml").write_text(RULE.format(rule=version))
    (directory / "..data").symlink_to("..one")
    (directory / "rules.yaml").symlink_to("..data/rules.yaml")
    with served.mesh() as mesh, httpx.Client(transport=mesh.transport()) as client:
        eventually(lambda: client.get("http://reviews/").headers.get("x-rule") == "one")
        (directory / "..next").symlink_to("..two")
        (directory / "..next").replace(directory / "..data")
        eventually(lambda: client.get("http://reviews/").headers.get("x-rule") == "two")
        assert mesh.status().ok
