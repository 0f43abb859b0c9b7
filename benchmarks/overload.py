"""Five times what one worker can do: goodput, latency and what goes first, without the middleware and with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.callers import Reply, Stream, percentile, play, throughput

DROWNING = str(Path(__file__).parent / "drowning.py")

TIMES = 5
"""The load, as a multiple of what the worker can do."""

COULD = {"computing": 50.0, "waiting": 100.0}
"""Requests a second that a worker could do with a processor to itself."""

SHARES = {"critical": 0.05, "default": 0.25, "best-effort": 0.7}

DEADLINE = 0.5
"""Seconds a caller waits."""

SECONDS, SETTLE = 8.0, 3.0

QUEUE = {"maxPending": 50, "maxWait": "100ms"}
SIGNALS = {"eventLoopLag": "100ms", "queueTime": "50ms"}
POLICIES: dict[str, dict[str, object]] = {
    "limit known": {"concurrency": {"maxRequests": 10, **QUEUE}, "overload": SIGNALS},
    "limit found": {"concurrency": {"adaptive": {"initialLimit": 20}, **QUEUE}, "overload": SIGNALS},
}


class Result(NamedTuple):
    """One run: answers within the deadline a second, and what became of each priority."""

    goodput: float
    replies: Sequence[Reply]

    def latency(self, priority: str, percent: float) -> float:
        """Seconds of the good answers."""
        good = [reply.seconds for reply in self.replies if reply.priority == priority and reply.status == 200]
        return percentile(good, percent)

    def served(self, priority: str) -> float:
        """The share of a priority's requests that got a good answer in time."""
        its = [reply for reply in self.replies if reply.priority == priority]
        return sum(reply.status == 200 for reply in its) / len(its) if its else 0.0


@contextlib.contextmanager
def worker(kind: str, documents: Path | None) -> Iterator[int]:
    """A worker's port; in the mesh if there are documents."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    command = [sys.executable, DROWNING, str(listener.fileno()), kind, *([str(documents)] if documents else [])]
    # What it logs of requests that are turned away is no part of the table.
    process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL)
    port = listener.getsockname()[1]
    listener.close()
    try:
        asyncio.run(throughput(port, 1, 0.2))
        yield port
    finally:
        process.kill()
        process.wait()


def measured(kind: str, documents: Path | None, streams: Sequence[Stream], seconds: float, settle: float) -> Result:
    """One run with a worker of its own."""
    with worker(kind, documents) as port:
        replies = asyncio.run(play(port, streams, seconds, DEADLINE, settle))
    good = sum(reply.status == 200 for reply in replies)
    return Result(good / (seconds - settle), replies)


def compare(kind: str, folders: Mapping[str, Path], seconds: float = SECONDS, settle: float = SETTLE) -> None:
    """Print both sides of one kind of worker; `folders` have the documents of each policy."""
    with worker(kind, None) as port:
        best = max(asyncio.run(throughput(port, 20 if kind == "waiting" else 2, 2.0)) for _ in range(3))
    rate = TIMES * max(best, COULD[kind])  # on a machine that is busy the worker is slower, and the load isn't less
    streams = [Stream(priority, rate * share) for priority, share in SHARES.items()]
    print(f"\n  {kind}: {best:.0f} requests a second at best, {rate:.0f} come, callers wait {DEADLINE * 1000:.0f} ms")
    print("                  goodput   of best   served of each priority, and its p50 / p99 in ms")
    alone = measured(kind, folders["limit known"], streams[:1], seconds, settle)
    _row("unloaded", alone, best)
    _row("bare", measured(kind, None, streams, seconds, settle), best)
    for name, folder in folders.items():
        meshed = measured(kind, folder, streams, seconds, settle)
        ratio = meshed.latency("critical", 99) / max(alone.latency("critical", 99), 1e-9)
        _row(name, meshed, best, f"p99 of critical: {ratio:.2f} x unloaded")


def _row(name: str, result: Result, best: float, note: str = "") -> None:
    cells = [
        f"{one} {result.served(one):4.0%} {result.latency(one, 50) * 1000:4.0f} /{result.latency(one, 99) * 1000:4.0f}"
        for one in SHARES
    ]
    print(f"  {name:16} {result.goodput:6.1f} {result.goodput / best:9.0%}   {'   '.join(cells)}   {note}")


def processor() -> float:
    """The share of a processor that a busy thread gets here; less than 1 on a machine busy with other things."""
    begun, used = time.perf_counter(), time.thread_time()
    while time.perf_counter() < begun + 0.3:
        pass
    return (time.thread_time() - used) / (time.perf_counter() - begun)


def run(rounds: int) -> None:
    print(f"  a busy thread gets {processor():.0%} of a processor here; much less than all, and the times mean little")
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place) / name.replace(" ", "-") for name in POLICIES}
        for name, folder in folders.items():
            folder.mkdir()
            policy = {"apiVersion": "meshlib/v1", "kind": "InboundPolicy", "metadata": {"name": "overload"}}
            (folder / "policy.json").write_text(json.dumps({**policy, "spec": POLICIES[name]}))
        for kind in ("computing", "waiting"):
            compare(kind, folders)
