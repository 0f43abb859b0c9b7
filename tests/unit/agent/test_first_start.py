"""The first process of a mesh, when the registry isn't there yet."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from meshlib import Mesh
from tests.support import eventually


def levels(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [record.levelno for record in caplog.records if "no configuration yet" in record.message]


def test_a_client_is_warned_that_there_is_no_registry(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "meshlib")
    with Mesh(f"sqlite://{tmp_path}/mesh.db", state_dir=tmp_path):
        pass
    assert levels(caplog) == [logging.WARNING]


@pytest.mark.parametrize("half_made", [False, True])
def test_a_service_that_is_about_to_make_the_registry_is_not_warned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, half_made: bool
) -> None:
    caplog.set_level(logging.INFO, "meshlib")
    if half_made:
        (tmp_path / "mesh.db").touch()
    with Mesh(f"sqlite://{tmp_path}/mesh.db", service="reviews", state_dir=tmp_path):
        pass
    assert levels(caplog) == [logging.INFO]


def test_who_finds_no_registry_yet_begins_empty_and_while_it_is_being_made_but_no_longer(tmp_path: Path) -> None:
    database = tmp_path / "mesh.db"
    with Mesh(f"sqlite://{database}", service="reviews", state_dir=tmp_path) as mesh:
        agent = mesh._agent
        assert agent is not None
        assert mesh.begins_empty
        database.write_bytes(b"not yet, or never, a database" * 200)
        eventually(lambda: not agent._ours_to_make(), 10.0)
        assert mesh.begins_empty, "it may be in the making"
        eventually(lambda: not mesh.begins_empty, 10.0)


def test_a_document_that_was_broken_while_nobody_ran_undoes_nothing_that_was_in_force(tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    strict = (
        "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: s}, spec: {mtls: {mode: %s}}}"
    )
    (documents / "strict.yaml").write_text(strict % "STRICT")
    with Mesh(f"file://{documents}", service="reviews", state_dir=tmp_path) as mesh:
        assert mesh.plan is not None
        assert mesh.plan.inbound.mode == "STRICT"
    (documents / "strict.yaml").write_text(strict % "STRICTT")
    with Mesh(f"file://{documents}", service="reviews", state_dir=tmp_path) as mesh:
        assert mesh.plan is not None
        assert mesh.plan.inbound.mode == "STRICT"
