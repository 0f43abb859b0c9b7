"""What the tests with real processes share: starting and steering them, and a steady load of calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

import meshlib
from meshlib.errors import Attempt, CallError, RegistryError
from meshlib.registries import Registry, open_registry
from meshlib.resources import Source, load
from tests.support import eventually, eventually_async

WORKERS = Path(__file__).parent
ROOTS = os.pathsep.join([str(WORKERS.parents[2]), str(Path(meshlib.__path__[0]).parent)])
LANES = 16
PATIENCE = 30.0


def environment(**variables: str) -> dict[str, str]:
    """The environment of a worker: ours without MESHLIB_*, its output sent as it is written, and `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESHLIB_", "COV_", "PYTEST"))}
    return {**kept, "PYTHONPATH": ROOTS, "PYTHONUNBUFFERED": "1", **variables}


class Worker:
    """A worker program as a process; it ends when its input does, so that none outlives the test."""

    def __init__(self, program: str, *arguments: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKERS / f"{program}.py"), *arguments],
            env=environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, word: str) -> None:
        """Give the worker a line."""
        assert self.process.stdin is not None
        print(word, file=self.process.stdin, flush=True)

    def line(self) -> str:
        """What the worker says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """End it kindly and wait for it. One that doesn't end is killed, and raises TimeoutExpired."""
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.send_signal(signal.SIGCONT)  # it may have been stopped
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            raise
        finally:
            process.stdout.close()


class Seen:
    """What an `observer` has said: when each version came in force. Its output is read beside the test."""

    def __init__(self, observer: Worker) -> None:
        self.versions: dict[str, float] = {}
        self._observer = observer
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        eventually(lambda: self.versions, PATIENCE)

    def _read(self) -> None:
        while line := self._observer.line():
            version, at = line.split()
            self.versions[version] = float(at)

    def when(self, version: str) -> float:
        """Monotonic seconds at which `version` came in force."""
        eventually(lambda: version in self.versions, PATIENCE)
        return self.versions[version]


class Instance(Worker):
    """One instance of a service."""

    def __init__(self, url: str, state_dir: Path, service: str, version: str, **variables: str) -> None:
        super().__init__("server", url, str(state_dir), service, version, **variables)
        self.version = version
        self.port = 0

    def wait_until_ready(self) -> None:
        """Return when it is registered."""
        word, port = self.line().split()
        assert word == "ready"
        self.port = int(port)

    def counts(self) -> dict[str, int]:
        """How many requests it has read, by method."""
        self.say("count")
        counts: dict[str, int] = json.loads(self.line())
        return counts


class Fleet:
    """The instances of one service, and the registry they are in; `variables` are in the environment of each."""

    def __init__(self, url: str, state_dir: Path, **variables: str) -> None:
        self.url = url
        self.state_dir = state_dir
        self.variables = variables
        self.instances: list[Instance] = []

    def start(self, *versions: str, service: str = "reviews") -> list[Instance]:
        """Start one instance of each version and wait until all are registered."""
        started = [Instance(self.url, self.state_dir, service, version, **self.variables) for version in versions]
        self.instances += started
        for instance in started:
            instance.wait_until_ready()
        return started

    def mesh(self, **options: Any) -> meshlib.Mesh:
        """A mesh in this process that sees every instance."""
        mesh = meshlib.Mesh(self.url, state_dir=self.state_dir, **options).open()
        eventually(lambda: mesh.status().endpoints == len(self.instances), PATIENCE)
        return mesh

    def apply(self, text: str) -> None:
        """Apply documents as an operator would; a registry that is being written is tried again."""
        resources = loaded(text)
        deadline = time.monotonic() + PATIENCE

        async def attempt() -> None:
            registry: Registry = open_registry(self.url)
            try:
                await registry.apply(resources)
            finally:
                await registry.aclose()

        while True:
            try:
                asyncio.run(attempt())
            except RegistryError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            else:
                return

    def version(self) -> str:
        """The version of what is in the registry now."""

        async def read() -> str:
            registry = open_registry(self.url)
            try:
                return (await registry.snapshot()).version
            finally:
                await registry.aclose()

        return asyncio.run(read())

    def end(self) -> None:
        """End every process and wait for it."""
        for instance in self.instances:
            instance.end()


def loaded(text: str) -> Iterable[Any]:
    """The documents in `text`."""
    found = load([Source("test.yaml", text.encode())])
    assert not found.problems, found.problems
    return found.resources


@contextlib.contextmanager
def fleet_in(directory: Path) -> Iterator[Fleet]:
    """A fleet whose registry is an SQLite file in `directory`."""
    fleet = Fleet(f"sqlite://{directory}/registry/mesh.db", directory / "state")
    try:
        yield fleet
    finally:
        fleet.end()


class Record(NamedTuple):
    """What became of one call; times are monotonic seconds."""

    began: float
    ended: float
    status: int
    body: str
    error: BaseException | None
    attempts: tuple[Attempt, ...]

    @property
    def failed(self) -> bool:
        return self.status != 200


async def call(client: httpx.AsyncClient, method: str = "GET", url: str = "http://reviews/") -> Record:
    """One call, and whatever came of it."""
    began = time.monotonic()
    try:
        response = await client.request(method, url)
    except CallError as error:
        return Record(began, time.monotonic(), 0, "", error, error.evidence.attempts)
    ended = time.monotonic()
    attempts = response.extensions["meshlib"].evidence(ended).attempts if "meshlib" in response.extensions else ()
    return Record(began, ended, response.status_code, response.text, None, attempts)


class Load:
    """A steady load of GETs from `LANES` tasks, together `rate` a second.

    Attributes:
        records: of the calls that have ended.
    """

    def __init__(self, client: httpx.AsyncClient, rate: float) -> None:
        self.records: list[Record] = []
        self._client = client
        self._pause = LANES / rate
        self._enough = False

    async def lane(self) -> None:
        due = time.monotonic()
        while not self._enough:
            self.records.append(await call(self._client))
            # What is late is dropped: a slow call must not be followed by a burst.
            due = max(due + self._pause, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def until_calls(self, more: int) -> None:
        """Go on until `more` further calls have ended."""
        wanted = len(self.records) + more
        await eventually_async(lambda: len(self.records) >= wanted, PATIENCE)

    def stop(self) -> None:
        self._enough = True


@contextlib.asynccontextmanager
async def load_on(mesh: meshlib.Mesh, rate: float = 300.0) -> AsyncIterator[Load]:
    """Keep `mesh` under load inside the block; at its end every call has ended."""
    async with httpx.AsyncClient(transport=mesh.async_transport()) as client:
        under_way = Load(client, rate)
        async with asyncio.TaskGroup() as group:
            for _ in range(LANES):
                group.create_task(under_way.lane())
            try:
                yield under_way
            finally:
                under_way.stop()


def failures(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.failed]


def attempts_per_call(records: list[Record]) -> float:
    return sum(len(record.attempts) for record in records) / len(records)
