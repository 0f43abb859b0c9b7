"""Programs of others that tests need: brought by `scripts/_part`, or the test is skipped with the reason."""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

__all__ = ["Answer", "helper", "part", "stopped"]

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
UNAVAILABLE = 3  # the helper's status for what can't be had here


class Answer(NamedTuple):
    """What the helper says of a part."""

    status: int
    path: str
    reason: str


def part(name: str) -> Path:
    """Return where the program is; skip the test when it can't be had, fail it where `CI` is set."""
    status, path, reason = _asked(name)
    if status == 0:
        return Path(path)
    if status == UNAVAILABLE and not os.environ.get("CI"):
        pytest.skip(reason)
    pytest.fail(reason, pytrace=False)


def stopped(process: subprocess.Popen[bytes]) -> None:
    """SIGSTOP a child of ours and wait until all its threads stand still: the signal alone comes when it comes."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


@functools.cache
def _asked(name: str) -> Answer:
    # It fetches nothing: no test waits for the network.
    asked = subprocess.run(
        [SCRIPTS / "_part", "--here", name], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return Answer(asked.returncode, asked.stdout.removesuffix("\n"), asked.stderr.strip())


def _load(file: Path) -> ModuleType:
    """Import a script that lies outside of every package."""
    spec = importlib.util.spec_from_file_location("meshlib_part", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["meshlib_part"] = importlib.util.module_from_spec(spec)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


helper = _load(SCRIPTS / "_part.py")
"""The helper itself, for the tests of it."""
