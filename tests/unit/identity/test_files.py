"""An identity in a directory, written by tools that take their time."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from contextlib import aclosing
from pathlib import Path

import pytest

from meshlib.errors import IdentityError
from meshlib.identity.files import MAX_FILE, NAMES, FilesIdentity
from meshlib.identity.material import Material
from tests.support.authority import Authority, Issued
from tests.support.watched import Watch, error, material

WEB = "spiffe://example.org/ns/default/sa/web"
CA = Authority()


def put(directory: Path, issued: Issued, roots: bytes = CA.roots, names: tuple[str, str, str] | None = None) -> None:
    for name, content in zip(
        names or ("tls.crt", "tls.key", "ca.crt"), (issued.certificates, issued.key, roots), strict=True
    ):
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600)


def watching(directory: Path) -> aclosing[Watch]:
    return aclosing(FilesIdentity(directory, interval=0).watch())


async def looks(watch: Watch, count: int = 6) -> asyncio.Task[Material | IdentityError]:
    """Wait for what comes next while `count` looks are taken, at an interval of one turn of the loop each."""
    task = asyncio.ensure_future(anext(watch))
    for _ in range(count):
        await asyncio.sleep(0)
    return task


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("tls.crt", "tls.key", "ca.crt"), id="Kubernetes, cert-manager"),
        pytest.param(("cert-chain.pem", "key.pem", "root-cert.pem"), id="Istio's agent"),
        pytest.param(("svid.pem", "svid_key.pem", "svid_bundle.pem"), id="spiffe-helper"),
        pytest.param(("cert.pem", "key.pem", "bundle.pem"), id="plain"),
    ],
)
def test_it_is_found_under_the_names_that_tools_use(tmp_path: Path, names: tuple[str, str, str]) -> None:
    issued = CA.issue(WEB)
    put(tmp_path, issued, names=names)

    async def run() -> None:
        async with watching(tmp_path) as watch:
            found = await material(watch)
            assert (str(found.id), found.certificates, found.key) == (WEB, issued.certificates, issued.key)

    asyncio.run(run())


def test_a_renewal_is_taken_and_nothing_is_said_without_one(tmp_path: Path) -> None:
    put(tmp_path, CA.issue(WEB))

    async def run() -> None:
        async with watching(tmp_path) as watch:
            await material(watch)
            waiting = await looks(watch)
            assert not waiting.done()
            renewed = CA.issue(WEB)
            put(tmp_path, renewed)
            said = await waiting
            assert isinstance(said, Material)
            assert said.key == renewed.key

    asyncio.run(run())


def test_what_is_still_being_written_is_not_taken(tmp_path: Path) -> None:
    old, new = CA.issue(WEB), CA.issue(WEB)
    put(tmp_path, old)

    async def run() -> None:
        source = FilesIdentity(tmp_path, interval=0)
        assert source._look(first=True) is not None
        (tmp_path / "tls.crt").write_bytes(new.certificates)
        assert source._look(first=False) is None
        (tmp_path / "tls.key").write_bytes(new.key)
        assert source._look(first=False) is None, "the roots may be next"
        taken = source._look(first=False)
        assert taken is not None
        assert taken.key == new.key

    asyncio.run(run())


def test_a_certificate_whose_key_never_comes_is_an_error_and_then_none(tmp_path: Path) -> None:
    put(tmp_path, CA.issue(WEB))
    new = CA.issue(WEB)

    async def run() -> None:
        async with watching(tmp_path) as watch:
            await material(watch)
            (tmp_path / "tls.crt").write_bytes(new.certificates)
            assert "the key isn't the certificate's" in await error(watch)
            waiting = await looks(watch)
            assert not waiting.done(), "said once"
            (tmp_path / "tls.key").write_bytes(new.key)
            said = await waiting
            assert isinstance(said, Material)
            assert said.key == new.key

    asyncio.run(run())


def test_the_volume_of_a_kubernetes_secret_is_swapped_by_a_link(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    old, new = CA.issue(WEB), CA.issue(WEB)
    put(tmp_path / "1", old)
    put(tmp_path / "2", new)
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    (tmp_path / "..data").symlink_to("1")

    async def run() -> None:
        async with watching(tmp_path) as watch:
            assert (await material(watch)).key == old.key
            (tmp_path / "..data_tmp").symlink_to("2")
            os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
            assert (await material(watch)).key == new.key

    asyncio.run(run())


def test_a_swap_in_the_middle_of_reading_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, CA.issue(WEB))
    second = CA.issue(WEB)
    source = FilesIdentity(tmp_path)
    read = Path.open

    def swapping(path: Path, *arguments: str) -> object:
        file = read(path, *arguments)  # type: ignore[call-overload]
        if path.name == "ca.crt":
            monkeypatch.undo()
            put(tmp_path, second)
        return file

    monkeypatch.setattr(Path, "open", swapping)
    assert source._look(first=True) is None
    assert source._look(first=False) is None
    taken = source._look(first=False)
    assert taken is not None
    assert taken.key == second.key


@pytest.mark.parametrize("role", list(NAMES))
def test_one_that_is_missing_is_named(tmp_path: Path, role: str) -> None:
    put(tmp_path, CA.issue(WEB))
    for name in NAMES[role]:
        (tmp_path / name).unlink(missing_ok=True)

    async def run() -> None:
        async with watching(tmp_path) as watch:
            said = await error(watch)
            assert f"holds no {role}" in said
            assert NAMES[role][0] in said

    asyncio.run(run())


def test_two_for_one_thing_are_refused_by_name(tmp_path: Path) -> None:
    put(tmp_path, CA.issue(WEB))
    (tmp_path / "roots.pem").write_bytes(CA.roots)

    async def run() -> None:
        async with watching(tmp_path) as watch:
            assert "more than one bundle of roots: ca.crt, roots.pem" in await error(watch)

    asyncio.run(run())


def test_a_directory_that_comes_later_is_found(tmp_path: Path) -> None:
    directory = tmp_path / "later"

    async def run() -> None:
        async with watching(directory) as watch:
            assert f"No such file or directory: {directory}" in await error(watch)
            directory.mkdir()
            put(directory, CA.issue(WEB))
            said = await anext(watch)
            while isinstance(said, IdentityError):
                said = await anext(watch)
            assert str(said.id) == WEB

    asyncio.run(run())


def test_files_that_go_are_an_error_and_come_back(tmp_path: Path) -> None:
    directory, away = tmp_path / "here", tmp_path / "away"
    directory.mkdir()
    put(directory, CA.issue(WEB))

    async def run() -> None:
        async with watching(directory) as watch:
            await material(watch)
            directory.rename(away)
            assert "No such file" in await error(watch)
            shutil.copytree(away, directory)
            assert str((await material(watch)).id) == WEB

    asyncio.run(run())


def test_a_file_beyond_measure_is_refused_by_name(tmp_path: Path) -> None:
    put(tmp_path, CA.issue(WEB))
    (tmp_path / "ca.crt").write_bytes(b"#" * (MAX_FILE + 1))

    async def run() -> None:
        async with watching(tmp_path) as watch:
            assert "ca.crt is larger than 1 MiB" in await error(watch)

    asyncio.run(run())


def test_what_is_not_valid_yet_is_taken_once_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, CA.issue(WEB))

    def too_early(source: str, *_: bytes) -> Material:
        raise IdentityError(source, "certificate is not yet valid")

    monkeypatch.setattr("meshlib.identity.files.make_material", too_early)

    async def run() -> None:
        async with watching(tmp_path) as watch:
            assert "not yet valid" in await error(watch)
            monkeypatch.undo()
            assert str((await material(watch)).id) == WEB

    asyncio.run(run())


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o660, True), (0o440, False), (0o400, False)])
def test_a_key_that_is_open_to_others_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    put(tmp_path, CA.issue(WEB))
    (tmp_path / "tls.key").chmod(mode)
    source = FilesIdentity(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert source._look(first=True) is not None
        (tmp_path / "ca.crt").write_bytes(CA.roots + CA.roots)
        assert source._look(first=False) is None
        assert source._look(first=False) is not None
    expected = [f"{tmp_path}/tls.key can be read or written by others (its mode is {mode:04o}); 0400 or 0440 would do"]
    assert [record.getMessage() for record in caplog.records] == expected * warned


def test_a_key_that_this_user_may_not_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, CA.issue(WEB))
    read = Path.open

    def forbidden(path: Path, *arguments: str) -> object:
        if path.name == "tls.key":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(IdentityError, match=r"Permission denied: .*tls\.key \(let this user read it\)"):
        FilesIdentity(tmp_path)._look(first=True)
