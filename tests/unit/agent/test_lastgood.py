"""The last good configuration on disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from meshlib.agent.lastgood import LastGood
from meshlib.registries.base import Instance, Update, make_update
from meshlib.resources import Intentions, Source


@pytest.fixture
def update() -> Update:
    instance = Instance(service="reviews", host="127.0.0.1", port=8001, labels={"version": "v2"}, weight=3)
    return make_update([instance], [Source("a.yaml", b"kind: Nothing\xff")])


def place(tmp_path: Path, namespace: str = "default", service: str | None = "web") -> LastGood:
    return LastGood(tmp_path / "state", "sqlite:///mesh.db", namespace, service)


def test_what_is_saved_is_loaded(tmp_path: Path, update: Update) -> None:
    place(tmp_path).save(update)
    loaded = place(tmp_path).load()
    assert loaded is not None
    assert (loaded.instances, loaded.sources, loaded.version) == (update.instances, update.sources, update.version)


def test_nothing_saved_is_nothing_loaded(tmp_path: Path) -> None:
    assert place(tmp_path).load() is None


def test_it_is_the_users_own(tmp_path: Path, update: Update) -> None:
    kept = place(tmp_path)
    kept.save(update)
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.path.parent.stat().st_mode) == 0o700


def test_each_registry_and_namespace_has_its_own(tmp_path: Path, update: Update) -> None:
    place(tmp_path).save(update)
    assert place(tmp_path, "shop").load() is None


def test_a_service_starts_with_nobody_elses_intentions(tmp_path: Path) -> None:
    everybody, nobody = Intentions(default_allow=True), Intentions(default_allow=False)
    place(tmp_path, service="ratings").save(make_update([], [], intentions=nobody))
    place(tmp_path, service="web").save(make_update([], [], intentions=everybody))
    place(tmp_path, service=None).save(make_update([], []))
    kept = place(tmp_path, service="ratings").load()
    assert kept is not None
    assert kept.intentions == nobody


@pytest.mark.parametrize("position", [0, 63, 64, 70, -1])
def test_a_flipped_bit_is_noticed(
    tmp_path: Path, update: Update, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    kept = place(tmp_path)
    kept.save(update)
    content = bytearray(kept.path.read_bytes())
    content[position] ^= 1
    kept.path.write_bytes(content)
    loaded = kept.load()
    # The line end between the sum and the rest is covered by neither.
    assert loaded is None or position == 64
    assert position == 64 or "can't be used" in caplog.text


def test_a_file_cut_short_is_noticed(tmp_path: Path, update: Update) -> None:
    kept = place(tmp_path)
    kept.save(update)
    kept.path.write_bytes(kept.path.read_bytes()[:-20])
    assert kept.load() is None


def test_a_directory_that_cant_be_written_costs_a_line_in_the_log(
    tmp_path: Path, update: Update, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file is in the way")
    place(tmp_path).save(update)
    assert "can't be kept" in caplog.text


def test_a_failed_save_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, update: Update, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = place(tmp_path)
    kept.save(update)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    kept.save(make_update([], []))
    assert kept.load() is not None
    assert [path.name for path in kept.path.parent.iterdir()] == [kept.path.name]
