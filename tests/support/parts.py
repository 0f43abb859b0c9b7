"""Programs of others that tests need: brought by `scripts/_part`, or the test is skipped with the reason."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

import pytest

__all__ = ["part"]

HELPER = Path(__file__).resolve().parents[2] / "scripts" / "_part"
UNAVAILABLE = 3  # the helper's status for what can't be had here


def part(name: str) -> Path:
    """Return where the program is; skip the test when it can't be had, fail it where `CI` is set."""
    status, path, reason = _asked(name)
    if status == 0:
        return Path(path)
    if status == UNAVAILABLE and not os.environ.get("CI"):
        pytest.skip(reason)
    pytest.fail(reason, pytrace=False)


@functools.cache
def _asked(name: str) -> tuple[int, str, str]:
    """Return what the helper says: status, path, reason. It fetches nothing: no test waits for the network."""
    asked = subprocess.run(
        [HELPER, "--here", name], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return asked.returncode, asked.stdout.removesuffix("\n"), asked.stderr.strip()
