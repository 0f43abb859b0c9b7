"""What may happen to a file, and that the registry comes through all of it by itself."""

# ruff: noqa: ASYNC221, ASYNC240 - what happens to files is the matter of these tests

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from meshlib.errors import RegistryError
from meshlib.registries.base import Instance, Update
from meshlib.registries.sqlite import SQLiteRegistry
from tests.contract.documents import entry
from tests.unit.registries.watching import watching

pytestmark = pytest.mark.anyio


def web(port: int) -> Instance:
    return Instance("web", "127.0.0.1", port)


def content(update: Update) -> tuple[list[int], int]:
    return [instance.port for instance in update.instances], len(update.sources)


def shell(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def rubbish_everywhere(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def truncated_to_a_page(path: Path) -> None:
    os.truncate(path, 4096)


def truncated_within_the_header(path: Path) -> None:
    os.truncate(path, 50)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def rubbish_in_the_middle(path: Path) -> None:
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    bump(path)


def one_letter_changed(path: Path) -> None:
    body = path.read_bytes()
    assert body.count(b"one.example") == 1
    path.write_bytes(body.replace(b"one.example", b"two.example"))
    bump(path)


def a_table_dropped(path: Path) -> None:
    shell(path, "DROP TABLE instances")


def facts_emptied(path: Path) -> None:
    shell(path, "DELETE FROM meta")


def deleted(path: Path) -> None:
    path.unlink()


def bump(path: Path) -> None:
    """Count one more change in the header, as a writer would; readers look at that."""
    with open(path, "r+b") as file:
        file.seek(24)
        count = int.from_bytes(file.read(4), "big") + 1
        file.seek(24)
        file.write(count.to_bytes(4, "big"))
        file.seek(92)
        file.write(count.to_bytes(4, "big"))


@pytest.mark.parametrize(
    "damage",
    [
        rubbish_everywhere,
        truncated_to_a_page,
        truncated_within_the_header,
        emptied,
        rubbish_in_the_middle,
        a_table_dropped,
        facts_emptied,
        deleted,
    ],
)
async def test_a_ruined_file_is_reported_and_rewritten_by_the_next_renewal(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "registry.db"
    registry = SQLiteRegistry(path)
    first, second = await registry.register(web(1)), await registry.register(web(2))
    await registry.apply([entry("one"), entry("two")])
    async with watching(registry) as watch:
        before = await watch.update()
        damage(path)
        error = await watch.error()
        assert str(path) in str(error)
        assert error.way_out
        await first.renew()
        await second.renew()
        after = await watch.settled()
        while content(after) != content(before):
            after = await watch.settled()
        assert after.version == before.version
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_changed_letter_in_a_document_is_damage_and_not_a_new_document(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    registry = SQLiteRegistry(path)
    await registry.apply([entry("one")])
    await registry.aclose()
    one_letter_changed(path)
    with pytest.raises(RegistryError, match="checksum"):
        await registry.snapshot()
    await registry.register(web(1))
    assert content(await registry.snapshot()) == ([1], 0)
    assert (tmp_path / "registry.db.damaged-1").exists()
    await registry.aclose()


async def test_every_damaged_file_is_kept_under_a_number_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    registry = SQLiteRegistry(path)
    lease = await registry.register(web(1))
    for _ in range(2):
        rubbish_everywhere(path)
        await lease.renew()
    assert {found.name for found in tmp_path.glob("*.damaged-*")} == {"registry.db.damaged-1", "registry.db.damaged-2"}
    await registry.aclose()


async def test_documents_deleted_on_purpose_stay_deleted(tmp_path: Path) -> None:
    here, there = SQLiteRegistry(tmp_path / "registry.db"), SQLiteRegistry(tmp_path / "registry.db")
    await here.apply([entry("one")])
    async with watching(here) as watch:
        assert content(await watch.update()) == ([], 1)
        await there.delete([entry("one").key])
        assert content(await watch.update()) == ([], 0)
        lease = await here.register(web(1))
        await lease.renew()
        assert content(await watch.update()) == ([1], 0)
    await there.aclose()


async def test_a_new_file_gets_the_documents_of_whoever_remembers_them(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    remembers, knows_nothing = SQLiteRegistry(path), SQLiteRegistry(path)
    await remembers.apply([entry("one")])
    async with watching(remembers) as watch:
        await watch.update()
        path.unlink()
        await knows_nothing.register(web(1))
        update = await watch.settled()
        assert content(update) == ([1], 1)
        assert content(await knows_nothing.snapshot()) == ([1], 1)
    await knows_nothing.aclose()


async def test_a_reader_reports_a_missing_file_and_creates_nothing(tmp_path: Path) -> None:
    registry = SQLiteRegistry(tmp_path / "registry.db")
    async with watching(registry) as watch:
        assert "does not exist" in str(await watch.error())
    assert list(tmp_path.iterdir()) == []


async def test_a_missing_directory_is_created_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "registry.db"
    registry = SQLiteRegistry(path)
    await registry.register(web(1))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await registry.aclose()


async def test_a_locked_file_is_an_error_until_it_is_unlocked(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    registry = SQLiteRegistry(path)
    lease = await registry.register(web(1))
    async with watching(registry) as watch:
        before = await watch.update()
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            assert "locked" in str(await watch.error())
            with pytest.raises(RegistryError, match="locked"):
                await lease.renew()
            holder.execute("ROLLBACK")
        assert await watch.update() == before
        await lease.renew()


async def test_an_hour_without_writing_expires_nobody_when_writing_is_possible_again(tmp_path: Path) -> None:
    now = 1000.0
    registry = SQLiteRegistry(tmp_path / "registry.db", lambda: now)
    first, _ = await registry.register(web(1)), await registry.register(web(2))
    now += 3600.0
    await first.renew()
    assert content(await registry.snapshot()) == ([1, 2], 0)
    await registry.aclose()


async def test_a_reboot_expires_only_those_who_do_not_come_back(tmp_path: Path) -> None:
    now = 1_000_000.0
    registry = SQLiteRegistry(tmp_path / "registry.db", lambda: now)
    first, _ = await registry.register(web(1)), await registry.register(web(2))
    now = 5.0
    for _ in range(5):
        await first.renew()
        now += first.interval
    assert content(await registry.snapshot()) == ([1], 0)
    await registry.aclose()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (Path.mkdir, "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: shell(path, "CREATE TABLE accounts (id)"), "something else"),
        (lambda path: shell(path, "PRAGMA application_id = 1835365224", "PRAGMA user_version = 9"), "format 9"),
    ],
    ids=["directory", "fifo", "foreign database", "newer format"],
)
async def test_what_is_no_registry_is_left_alone(tmp_path: Path, make: Callable[[Path], None], problem: str) -> None:
    path = tmp_path / "registry.db"
    make(path)
    registry = SQLiteRegistry(path)
    with pytest.raises(RegistryError, match=problem):
        await registry.register(web(1))
    with pytest.raises(RegistryError, match=problem):
        await registry.snapshot()
    assert not list(tmp_path.glob("*.damaged-*"))
    await registry.aclose()


async def test_an_error_is_told_once_however_long_it_lasts(tmp_path: Path) -> None:
    registry = SQLiteRegistry(tmp_path / "registry.db")
    async with watching(registry) as watch:
        await watch.error()
        following = asyncio.ensure_future(watch.update())
        await asyncio.sleep(0.5)
        assert not following.done()
        await registry.register(web(1))
        assert content(await following) == ([1], 0)


@contextmanager
def no_room_for_writing() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_takes_no_more_fails_renewals_and_nothing_else(tmp_path: Path) -> None:
    now = 1000.0
    registry = SQLiteRegistry(tmp_path / "registry.db", lambda: now)
    lease, _ = await registry.register(web(1)), await registry.register(web(2))
    now += 3600.0
    with no_room_for_writing():
        with pytest.raises(RegistryError, match=r"nobody expires until then"):
            await lease.renew()
        with pytest.raises(RegistryError):
            await registry.apply([entry("one")])
        assert content(await registry.snapshot()) == ([1, 2], 0)
    await lease.renew()
    assert content(await registry.snapshot()) == ([1, 2], 0)
    await registry.aclose()


async def test_a_full_disk_is_called_a_full_disk(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small file system")
    try:
        registry = SQLiteRegistry(tmp_path / "registry.db")
        lease = await registry.register(web(1))
        with pytest.raises(RegistryError, match="the disk is full"):
            await registry.apply([entry("large", "x" * 1_000_000)])
        await registry.apply([entry("small")])
        await lease.renew()
        assert content(await registry.snapshot()) == ([1], 1)
        await registry.aclose()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


async def test_a_file_that_cannot_be_made_is_an_error_that_says_what_to_change(tmp_path: Path) -> None:
    (tmp_path / "mesh.db.lock").symlink_to(tmp_path / "gone" / "lock")
    registry = SQLiteRegistry(tmp_path / "mesh.db")
    with pytest.raises(RegistryError, match=r"No such file or directory: .*mesh\.db\.lock \(let this user write"):
        await registry.register(web(1))
    await registry.aclose()


def test_a_file_that_never_was_a_registry_is_nobodys_to_set_aside(tmp_path: Path) -> None:
    novel = tmp_path / "novel.txt"
    novel.write_text("It was a dark and stormy night.\n" * 40)

    async def register() -> None:
        await SQLiteRegistry(novel).register(Instance(service="reviews", host="127.0.0.1", port=8001))

    with pytest.raises(RegistryError, match=r"not a registry.*name another file"):
        asyncio.run(register())
    assert novel.read_text().startswith("It was")
