"""A server that has an identity, and doesn't show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib import Mesh
from meshlib.testing.memory import MemoryRegistry


def said(path: Path, caplog: pytest.LogCaptureFixture, *, takes_tls: bool = False, **settings: object) -> bool:
    """Whether a process that registers says that its server speaks plain text."""
    mesh = Mesh(MemoryRegistry(), service="reviews", state_dir=path, **settings)  # type: ignore[arg-type]
    mesh.takes_tls = takes_tls
    mesh.serve("127.0.0.1:8001")
    mesh.serve("127.0.0.1:8001")
    mesh.close()
    lines = [one.message for one in caplog.records if "meshlib.server_ssl_context()" in one.message]
    assert len(lines) < 2, "once is enough"
    return bool(lines)


@pytest.fixture
def identity(tmp_path: Path) -> str:
    return f"files://{tmp_path / 'absent'}"


def test_it_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture, identity: str) -> None:
    assert said(tmp_path, caplog, identity=identity)


def test_one_that_takes_tls_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture, identity: str) -> None:
    assert not said(tmp_path, caplog, identity=identity, takes_tls=True)


def test_one_without_an_identity_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not said(tmp_path, caplog)


def test_one_behind_a_trusted_hop_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture, identity: str) -> None:
    assert not said(tmp_path, caplog, identity=identity, trusted_hops=["10.0.0.0/8"])
