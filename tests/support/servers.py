"""Servers as users start them: processes of their own, with a registry of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import meshlib
from meshlib.registries import default_url, open_registry
from meshlib.registries.base import Instance, Update
from tests.support import eventually

__all__ = ["Fleet", "Server"]

STARTUP = 30.0
SHUTDOWN = 20.0


class Server:
    """One started program. What it writes is in `log`."""

    def __init__(self, arguments: list[str], environ: dict[str, str], folder: Path, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], env=environ, cwd=folder, stdout=output, stderr=subprocess.STDOUT
            )

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; the exit status."""
        try:
            return self.process.wait(SHUTDOWN)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server goes on and on:\n{self.written()}") from None

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.tell(signal.SIGTERM)
        return self.wait()

    def written(self) -> str:
        return self.log.read_text("utf-8", "replace")


class Fleet:
    """The servers of one test, and the registry where they find each other.

    Args:
        folder: for the registry and the logs.
        apps: where the servers' modules are.
    """

    def __init__(self, folder: Path, apps: Path) -> None:
        self.state_dir = folder / "state"
        self._folder = folder
        self._apps = apps
        self._servers: list[Server] = []

    def start(self, service: str | None, *arguments: str, **variables: str) -> Server:
        """Start `python *arguments` as `service`; don't wait for it."""
        log = self._folder / f"{len(self._servers)}-{service}.log"
        server = Server(list(arguments), self._environ(service, variables), self._apps, log)
        self._servers.append(server)
        return server

    def run(self, *arguments: str) -> str:
        """Run `python *arguments` to its good end; what it wrote."""
        client = self.start(None, *arguments)
        status = client.wait()
        assert status == 0, client.written()
        return client.written()

    def _environ(self, service: str | None, variables: dict[str, str]) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MESHLIB_")}
        paths = [str(Path(meshlib.__path__[0]).parent), str(self._apps)]
        environ |= {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "MESHLIB_STATE_DIR": str(self.state_dir),
        }
        if service is not None:
            environ["MESHLIB_SERVICE"] = service
        return environ | variables

    def instances(self, service: str) -> list[Instance]:
        """Those that are registered now."""

        async def look() -> list[Instance]:
            registry = open_registry(default_url(self.state_dir))
            try:
                async with contextlib.aclosing(registry.watch()) as watch:  # type: ignore[type-var]
                    said = await anext(watch)
            finally:
                await registry.aclose()
            found = said.instances if isinstance(said, Update) else ()
            return [instance for instance in found if instance.service == service]

        return asyncio.run(look())

    def wait_for(self, service: str, count: int = 1) -> list[Instance]:
        """Wait until `count` instances are registered, and no less than one."""

        def complete() -> list[Instance]:
            ended = [server for server in self._servers if server.process.poll() not in {None, 0, -signal.SIGTERM}]
            assert not ended, ended[0].written()
            found = self.instances(service)
            return found if len(found) == count else []

        return eventually(complete, STARTUP)

    def mesh(self) -> meshlib.Mesh:
        """A client's mesh with the same registry."""
        return meshlib.Mesh(state_dir=self.state_dir)

    @contextlib.contextmanager
    def client(self) -> Iterator[meshlib.Client]:
        """A client in the mesh."""
        with self.mesh() as mesh, meshlib.Client(mesh=mesh) as client:
            yield client

    def end(self) -> None:
        """End whatever still runs: asked first, for a master that is killed leaves its workers behind."""
        running = [server for server in self._servers if server.process.poll() is None]
        for server in running:
            server.tell(signal.SIGTERM)
        for server in running:
            try:
                server.wait()
            finally:
                server.process.kill()
                server.process.wait()
