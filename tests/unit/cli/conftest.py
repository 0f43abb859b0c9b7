"""A registry of one's own, and the command run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from meshlib.cli import main


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Meshlib = Callable[..., Ran]


@pytest.fixture
def meshlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Meshlib:
    """Run the command with a registry that is this test's alone."""
    for name in ("MESHLIB_REGISTRY", "MESHLIB_NAMESPACE", "MESHLIB_SERVICE", "MESHLIB_LABELS", "MESHLIB_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MESHLIB_STATE_DIR", str(tmp_path / "state"))

    def run(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Ran(status, *capsys.readouterr())

    return run


RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
"""

SERVICE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
"""

MESH = f"{RULE}---\n{SERVICE}"


@pytest.fixture
def mesh_yaml(tmp_path: Path) -> Path:
    """Give a file with a rule and a service that needs it."""
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH)
    return path


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file
