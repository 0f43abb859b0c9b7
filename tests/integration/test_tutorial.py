"""The tutorial and the examples in the pages do what they say: their blocks are run as they stand.

Marks behind a fence: `file=NAME` is saved, `run` is run and must end well, `server` starts one process for each line,
and `output` is what the command before it prints, in any order, where `…` stands for anything. Ports are left to the
system.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import meshlib
from tests.support import eventually
from tests.support.fences import DOCS, PAGES, Block, blocks

SOURCE = str(Path(meshlib.__file__).parents[1])
COMMANDS = {
    "meshlib": "-c 'import sys; from meshlib.cli import main; sys.exit(main())'",
    "python": "",
    "uvicorn": "-m uvicorn",
}
RUNNABLE = [block for page in PAGES for block in blocks(page, "python") if "run" in block.marks]


class Shell:
    """A directory, an environment with the commands of the pages, and the servers started in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "work"
        self.directory.mkdir()
        commands = directory / "bin"
        commands.mkdir()
        for name, arguments in COMMANDS.items():
            (commands / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
            (commands / name).chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MESHLIB_")}
        self.environment = kept | {
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": SOURCE,
            "PYTHONWARNINGS": "error",
            "MESHLIB_STATE_DIR": str(directory / "state"),
        }
        self.servers: list[subprocess.Popen[bytes]] = []

    def run(self, text: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", text], cwd=self.directory, env=self.environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def serve(self, line: str) -> None:
        command = re.sub(r"--port \d+", "--port 0", line.rstrip(" &"))
        environment = dict(self.environment)
        words = shlex.split(command)
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        self.servers.append(subprocess.Popen(words, cwd=self.directory, env=environment, stderr=subprocess.DEVNULL))

    def registered(self) -> int:
        return self.run("meshlib get ep -o name").count("instance/")

    def stop(self) -> None:
        for server in self.servers:
            server.send_signal(signal.SIGTERM)
        try:
            for server in self.servers:
                server.wait(20)
        finally:
            for server in self.servers:
                server.kill()
                server.wait()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.stop()


def test_the_tutorial_does_what_it_says(shell: Shell) -> None:
    printed = ""
    for block in blocks(DOCS / "tutorial.md"):
        saved = [mark.removeprefix("file=") for mark in block.marks if mark.startswith("file=")]
        if saved:
            (shell.directory / saved[0]).write_text(block.text)
        elif "server" in block.marks:
            for line in block.text.splitlines():
                shell.serve(line)
            eventually(lambda: shell.registered() == len(shell.servers), timeout=30)
        elif "run" in block.marks:
            printed = shell.run(block.text)
        elif "output" in block.marks:
            assert_printed(block, printed)


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_an_example_that_is_said_to_run_runs(block: Block, shell: Shell) -> None:
    (shell.directory / "example.py").write_text(block.text)
    shell.run("python example.py")


def assert_printed(expected: Block, printed: str) -> None:
    lines = [*map(comparable, printed.splitlines())]
    for wanted in filter(None, map(comparable, expected.text.splitlines())):
        pattern = ".*".join(map(re.escape, wanted.split("…")))
        line = next((line for line in lines if re.fullmatch(pattern, line)), None)
        assert line is not None, f"{expected}: {wanted!r} is not in\n{printed}"
        lines.remove(line)


def comparable(line: str) -> str:
    return " ".join(re.sub(r":\d{4,5}\b", ":PORT", line).split())
