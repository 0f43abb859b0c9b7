"""The command as a process: pipes, signals, and a registry that others use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import meshlib
from tests.support import eventually

COMMAND = [sys.executable, "-W", "error", "-c", "import sys; from meshlib.cli import main; sys.exit(main())"]
SOURCE = str(Path(meshlib.__file__).parents[1])

RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews}
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MESHLIB_")}
    return kept | {"MESHLIB_STATE_DIR": str(tmp_path), "PYTHONPATH": SOURCE}


@pytest.fixture
def served(environment: dict[str, str]) -> Iterator[meshlib.Mesh]:
    """Give a mesh that serves `reviews` in the registry of this test."""
    directory = environment["MESHLIB_STATE_DIR"]
    with meshlib.Mesh(f"sqlite://{directory}/registry.db", service="reviews", labels={"version": "v1"}) as mesh:
        mesh.serve("127.0.0.1:8123")
        eventually(lambda: mesh.status().registered)
        yield mesh


def run(environment: dict[str, str], *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, input=text, capture_output=True, text=True, timeout=30, check=False
    )


def test_documents_come_through_stdin_and_go_out_through_stdout(environment: dict[str, str]) -> None:
    applied = run(environment, "apply", "-f", "-", text=RULE)
    assert (applied.returncode, applied.stdout, applied.stderr) == (0, "destinationrule/reviews created\n", "")
    got = run(environment, "get", "-o", "yaml")
    assert run(environment, "apply", "-f", "-", text=got.stdout).stdout == "destinationrule/reviews unchanged\n"


@pytest.mark.usefixtures("served")
def test_registered_instances_are_seen(environment: dict[str, str]) -> None:
    assert run(environment, "get", "ep", "reviews").stdout.splitlines()[1].split() == [
        "reviews",
        "127.0.0.1:8123",
        "healthy",
        "version=v1",
    ]
    assert run(environment, "status").stdout.splitlines()[-1].split() == ["default", "reviews", "1", "1", "v1", "×1"]
    assert "127.0.0.1:8123" in run(environment, "explain", "http://reviews/").stdout


def test_what_is_applied_is_in_force_in_a_running_mesh(environment: dict[str, str], served: meshlib.Mesh) -> None:
    before = served.status().version
    assert run(environment, "apply", "-f", "-", text=RULE).returncode == 0
    eventually(lambda: served.status().version != before)


def test_a_reader_that_goes_away_is_no_traceback(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [*COMMAND, "status"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 141
    assert "Traceback" not in errors
    assert "Exception" not in errors


@pytest.mark.skipif(not Path("/proc/self/syscall").exists(), reason="needs to see what a process waits for")
def test_an_interrupt_ends_it_without_a_traceback(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [*COMMAND, "-n", "shop", "apply", "-f", "-"],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        eventually(lambda: reads_stdin(process.pid), timeout=20)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (130, "")


def reads_stdin(pid: int) -> bool:
    return Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 ")
