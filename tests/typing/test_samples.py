"""What a user writes is understood by a type checker in its strictest mode.

Each file in `samples` is such a program. Where a mistake must be seen, the line says `# type: ignore[code]`: in strict
mode an ignore that isn't needed is an error itself.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parent / "samples"
PROJECT = Path(__file__).parents[2]


@pytest.mark.slow
def test_mypy_accepts_every_sample(tmp_path: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path, SAMPLES],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
