"""The processes of the demo: started, killed, ended, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from meshlib.cli.output import CommandError

__all__ = ["MEMBERS", "Fleet", "Member"]

TAIL = 25
"""Lines of a process's log that are shown when it ends before its time."""

END_WITHIN = 5.0


class Member(NamedTuple):
    """A process to be: a service, its version, and which of its kind it is."""

    service: str
    version: str
    number: int

    def __str__(self) -> str:
        return f"{self.service}-{self.version}-{self.number}"


MEMBERS = (
    Member("productpage", "v1", 1),
    Member("details", "v1", 1),
    Member("reviews", "v1", 1),
    Member("reviews", "v1", 2),
    Member("reviews", "v2", 1),
    Member("reviews", "v3", 1),
    Member("reviews", "v3", 2),
    Member("ratings", "v1", 1),
    Member("ratings", "v1", 2),
)


class Fleet:
    """The running processes. Each reads from a pipe of ours, and ends when that does: whatever becomes of us.

    Args:
        directory: for the logs.
        registry: URL.
        identity: MESHLIB_IDENTITY.
    """

    def __init__(self, directory: Path, registry: str, identity: str) -> None:
        self._directory = directory
        self._registry = registry
        self._identity = identity
        self._running: dict[Member, subprocess.Popen[bytes]] = {}

    def start(self, member: Member) -> None:
        """Start one process; its output goes to its log."""
        ours = {
            "MESHLIB_SERVICE": member.service,
            "MESHLIB_LABELS": f"version={member.version}",
            "MESHLIB_REGISTRY": self._registry,
            "MESHLIB_STATE_DIR": str(self._directory),
            "MESHLIB_IDENTITY": self._identity,
            "MESHLIB_OUTBOUND": "registry-only",
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith("MESHLIB_")}
        with self._log(member).open("wb") as log:
            self._running[member] = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "meshlib.cli.demo.services", member.service],
                env=others | ours,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: we end them in good order
            )

    def check(self) -> None:
        """Raise CommandError with the log of a process that has ended by itself."""
        for member, process in self._running.items():
            if process.poll() is not None:
                raise CommandError(f"{member} ended with status {process.returncode}; its log:\n{self.tail(member)}")

    def tail(self, member: Member) -> str:
        """The last lines of a process's log."""
        lines = self._log(member).read_text("utf-8", "replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL:]) or "  (empty)"

    def kill(self, member: Member) -> int:
        """Kill -9 one process and answer its id; it is no longer expected to run."""
        process = self._running.pop(member)
        process.kill()
        process.wait()
        _close(process)
        return process.pid

    def stop(self) -> None:
        """End all, in good order if they hurry."""
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + END_WITHIN
        for process in self._running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close(process)
        self._running.clear()

    def _log(self, member: Member) -> Path:
        return self._directory / f"{member}.log"


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
