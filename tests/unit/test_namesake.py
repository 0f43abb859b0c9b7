"""Another distribution owns a package of the same name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def imported(place: Path) -> str:
    """What `import meshlib` says when `place` is on the path behind ours."""
    paths = os.pathsep.join([str(Path(__file__).parents[2] / "src"), str(place)])
    done = subprocess.run(
        [sys.executable, "-c", "import meshlib"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


def test_it_is_warned_of_when_it_is_installed(tmp_path: Path) -> None:
    (tmp_path / "meshlib").mkdir()
    (tmp_path / "meshlib" / "mrmeshpy.pyi").touch()
    said = imported(tmp_path)
    assert "meshlib-core" in said
    assert str(tmp_path) in said
    assert "environments of their own" in said


def test_nothing_is_said_when_it_is_not(tmp_path: Path) -> None:
    assert imported(tmp_path) == ""
