"""What a directory of files goes through under the hands of people and tools."""

# ruff: noqa: ASYNC230, ASYNC240 - what happens to files is the matter of these tests

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from meshlib.errors import RegistryError
from meshlib.registries.base import MAX_DOCUMENT_BYTES, Instance, Update
from meshlib.registries.file import FileRegistry
from tests.contract.documents import entry
from tests.unit.registries.watching import watching

pytestmark = pytest.mark.anyio


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    directory = tmp_path / "mesh"
    directory.mkdir()
    return directory


def texts(update: Update) -> list[bytes]:
    return [source.text for source in update.sources]


def web(port: int) -> Instance:
    return Instance("web", "127.0.0.1", port)


async def test_yaml_and_json_files_are_read_in_order_and_nothing_else(mesh: Path) -> None:
    for name in ("b.yml", "a.yaml", "c.json", ".hidden.yaml", "notes.txt"):
        (mesh / name).write_text(name)
    (mesh / "below").mkdir()
    (mesh / "below" / "d.yaml").write_text("d")
    (mesh / "folder.yaml").mkdir()
    update = await FileRegistry(mesh).snapshot()
    assert texts(update) == [b"a.yaml", b"b.yml", b"c.json"]
    assert update.sources[0].origin == str(mesh / "a.yaml")


async def test_an_empty_directory_is_an_empty_configuration(mesh: Path) -> None:
    assert (await FileRegistry(mesh).snapshot()).sources == ()


async def test_a_file_that_grows_is_taken_when_it_has_stopped_growing(mesh: Path) -> None:
    (mesh / "a.yaml").write_text("0")
    async with watching(FileRegistry(mesh)) as watch:
        assert texts(await watch.update()) == [b"0"]
        following = asyncio.ensure_future(watch.update())
        for _ in range(20):
            with open(mesh / "a.yaml", "a") as file:
                file.write("1")
            await asyncio.sleep(0.02)
        assert texts(await following) == [b"0" + b"1" * 20]


async def test_a_vanished_directory_is_an_error_until_it_is_back(mesh: Path) -> None:
    (mesh / "a.yaml").write_text("a")
    async with watching(FileRegistry(mesh)) as watch:
        before = await watch.update()
        mesh.rename(mesh.with_name("away"))
        error = await watch.error()
        assert f"{mesh} does not exist" in str(error)
        mesh.with_name("away").rename(mesh)
        assert await watch.update() == before


async def test_the_symlink_swap_of_a_mounted_configmap_is_one_change(mesh: Path) -> None:
    for version in ("1", "2"):
        (mesh / f"..{version}").mkdir()
        for name in ("a.yaml", "b.yaml"):
            (mesh / f"..{version}" / name).write_text(version)
    (mesh / "..data").symlink_to("..1")
    for name in ("a.yaml", "b.yaml"):
        (mesh / name).symlink_to(f"..data/{name}")
    async with watching(FileRegistry(mesh)) as watch:
        assert texts(await watch.update()) == [b"1", b"1"]
        (mesh / "..new").symlink_to("..2")
        os.replace(mesh / "..new", mesh / "..data")
        assert texts(await watch.update()) == [b"2", b"2"]


async def test_a_file_too_large_is_named_and_the_error_ends_with_it(mesh: Path) -> None:
    (mesh / "a.yaml").write_text("a")
    async with watching(FileRegistry(mesh)) as watch:
        before = await watch.update()
        with open(mesh / "large.yaml", "wb") as file:
            file.truncate(MAX_DOCUMENT_BYTES + 1)
        assert "large.yaml" in str(await watch.error())
        (mesh / "large.yaml").unlink()
        assert await watch.update() == before


async def test_a_link_to_nowhere_is_named(mesh: Path) -> None:
    (mesh / "a.yaml").symlink_to("nowhere")
    with pytest.raises(RegistryError, match=r"a\.yaml does not exist"):
        await FileRegistry(mesh).snapshot()


async def test_a_single_file_is_a_registry_with_leases_beside_it(mesh: Path) -> None:
    path = mesh / "all.yaml"
    path.write_text("a")
    registry = FileRegistry(path)
    await registry.register(web(1))
    update = await registry.snapshot()
    assert (texts(update), len(update.instances)) == ([b"a"], 1)
    assert (mesh / "all.yaml.instances").is_dir()
    with pytest.raises(RegistryError, match="edit the file"):
        await registry.apply([entry("one")])


async def test_a_document_is_replaced_in_the_file_its_author_gave_it(mesh: Path) -> None:
    path = mesh / "mine.yaml"
    path.write_text("kind: ServiceEntry\nmetadata: {name: one}\n")
    await FileRegistry(mesh).apply([entry("one")])
    assert [found.name for found in mesh.glob("*.*") if not found.name.startswith(".")] == ["mine.yaml"]
    assert b"one.example" in path.read_bytes()


async def test_a_document_that_shares_its_file_is_left_to_its_author(mesh: Path) -> None:
    path = mesh / "ours.yaml"
    path.write_text("kind: ServiceEntry\nmetadata: {name: one}\n---\nkind: ServiceEntry\nmetadata: {name: two}\n")
    before = path.read_bytes()
    registry = FileRegistry(mesh)
    with pytest.raises(RegistryError, match=r"one of 2 documents in .*ours\.yaml"):
        await registry.apply([entry("new"), entry("one")])
    with pytest.raises(RegistryError, match=r"one of 2 documents in .*ours\.yaml"):
        await registry.delete([entry("two").key])
    assert path.read_bytes() == before
    assert len((await registry.snapshot()).sources) == 1


async def test_a_lease_file_full_of_rubbish_is_passed_over_with_a_warning_and_healed_by_its_renewal(mesh: Path) -> None:
    registry = FileRegistry(mesh)
    lease = await registry.register(web(1))
    await registry.register(web(2))
    (mesh / ".instances" / f"{lease.instance.id}.json").write_bytes(b"\xff{")
    update = await registry.snapshot()
    assert [instance.port for instance in update.instances] == [2]
    assert lease.instance.id in update.warnings[0]
    await lease.renew()
    update = await registry.snapshot()
    assert ([instance.port for instance in update.instances], update.warnings) == ([1, 2], ())


async def test_a_clock_set_back_expires_only_those_who_do_not_come_back(mesh: Path) -> None:
    now = 1_000_000.0
    registry = FileRegistry(mesh, lambda: now)
    first, _ = await registry.register(web(1)), await registry.register(web(2))
    now -= 3600.0
    for _ in range(5):
        await first.renew()
        assert 1 in [instance.port for instance in (await registry.snapshot()).instances]
        now += first.interval
    assert [instance.port for instance in (await registry.snapshot()).instances] == [1]


async def test_registering_where_nothing_is_says_so(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="does not exist"):
        await FileRegistry(tmp_path / "missing").register(web(1))
    assert list(tmp_path.iterdir()) == []
