"""The demo as a process: it proves its claims, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import meshlib
from tests.support import eventually
from tests.support.parts import part

COMMAND = [sys.executable, "-W", "error", "-c", "import sys; from meshlib.cli import main; sys.exit(main())", "demo"]
SOURCE = str(Path(meshlib.__file__).parents[1])
TIMED = ("in force", "deadline ran out", "left the registry", "another leads")
"""Claims of how long something took: on a busy machine they may be false, and the demo then says so."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MESHLIB_")}
    return kept | {"TMPDIR": str(tmp_path), "PYTHONPATH": SOURCE, "PYTHONUNBUFFERED": "1"}


@contextmanager
def demo(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if words in line:
            return text
    assert process.stderr is not None
    raise AssertionError(f"{words!r} was never said:\n{text}\n{process.stderr.read()}")


def ports(text: str) -> list[int]:
    found = [int(port) for line in re.findall(r"127\.0\.0\.1, port ([0-9, ]+)", text) for port in line.split(",")]
    assert len(found) == 9
    return found


def nobody_listens(numbers: list[int]) -> bool:
    for number in numbers:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", number)) == 0:
                return False
    return True


def test_it_proves_its_claims_and_leaves_nothing_behind(environment: dict[str, str], tmp_path: Path) -> None:
    with demo(environment, "--fast") as process:
        text, errors = process.communicate(timeout=180)
    claims = [line for line in text.splitlines() if line.startswith(("✓", "✗"))]
    assert len(claims) == 17
    assert [line for line in claims if line.startswith("✗") and not any(words in line for words in TIMED)] == []
    assert process.returncode == any(line.startswith("✗") for line in claims)
    assert errors == ""
    assert "\x1b" not in text
    assert max(map(len, claims)) < 80
    assert nobody_listens(ports(text))
    assert list(tmp_path.iterdir()) == []


def test_on_consul_it_proves_more_and_leaves_nothing_behind_either(environment: dict[str, str], tmp_path: Path) -> None:
    environment["CONSUL_BIN"] = str(part("consul"))
    with demo(environment, "--fast", "--registry", "consul") as process:
        text, errors = process.communicate(timeout=240)
    claims = [line for line in text.splitlines() if line.startswith(("✓", "✗"))]
    assert len(claims) == 22
    assert [line for line in claims if line.startswith("✗") and not any(words in line for words in TIMED)] == []
    assert errors == ""
    assert nobody_listens(ports(text))
    assert list(tmp_path.iterdir()) == []


def test_its_consul_ends_even_when_it_is_killed(environment: dict[str, str], tmp_path: Path) -> None:
    environment["CONSUL_BIN"] = str(part("consul"))
    with demo(environment, "--registry", "consul") as process:
        text = read_until(process, "A canary")
        agents = [json.loads(file.read_text())["ports"]["http"] for file in tmp_path.glob("*/consul-*.json")]
        process.kill()
        process.wait(30)
    assert len(agents) == 4
    eventually(lambda: nobody_listens([*agents, *ports(text)]))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_everything_in_good_order(
    environment: dict[str, str], tmp_path: Path, number: int, status: int
) -> None:
    with demo(environment) as process:
        text = read_until(process, "A canary")
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (status, "")
    assert nobody_listens(ports(text))
    assert list(tmp_path.iterdir()) == []


def test_its_processes_end_even_when_it_is_killed(environment: dict[str, str]) -> None:
    with demo(environment) as process:
        text = read_until(process, "A canary")
        process.kill()
        process.wait(30)
    eventually(lambda: nobody_listens(ports(text)))


def test_a_process_that_does_not_start_is_told_with_its_log(environment: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "uvicorn.py").write_text("raise RuntimeError('no server today')\n")
    environment["PYTHONPATH"] += f"{os.pathsep}{broken}"
    environment["PYTHONPATH"] = os.pathsep.join(reversed(environment["PYTHONPATH"].split(os.pathsep)))
    with demo(environment) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ended with status 1; its log:" in errors
    assert "RuntimeError: no server today" in errors
    assert [entry.name for entry in tmp_path.iterdir()] == ["broken"]
