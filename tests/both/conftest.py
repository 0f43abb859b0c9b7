"""One way to write a scenario, and every client to run it with: sync and async, httpx and httpx2, asyncio and trio."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import anyio
import httpx
import httpx2
import pytest

from meshlib import Mesh
from meshlib.errors import CallError
from meshlib.registries.base import Instance
from meshlib.registries.memory import MemoryRegistry
from meshlib.resources import Source, load
from tests.both.servers import Handler, Web
from tests.support import eventually, eventually_async

T = TypeVar("T")


class Flavour(NamedTuple):
    """A client library, and how its client runs: `sync`, `asyncio` or `trio`."""

    client: ModuleType
    runs: str

    def __str__(self) -> str:
        return f"{self.client.__name__}-{self.runs}"


ISTIO = "networking.istio.io/v1"

SYNC = [Flavour(httpx, "sync"), Flavour(httpx2, "sync")]
ASYNC = [Flavour(httpx, "asyncio"), Flavour(httpx2, "asyncio"), Flavour(httpx, "trio")]


class Caller:
    """A client of any flavour behind one set of coroutines; those of a sync client never wait.

    Attributes:
        client: the client itself.
        lib: httpx or httpx2.
    """

    def __init__(self, flavour: Flavour, mesh: Mesh, transport: dict[str, Any], options: dict[str, Any]) -> None:
        self.lib: Any = flavour.client
        self.sync = flavour.runs == "sync"
        if self.sync:
            self.client = self.lib.Client(transport=mesh.transport(self.lib, **transport), **options)
        else:
            self.client = self.lib.AsyncClient(transport=mesh.async_transport(self.lib, **transport), **options)

    async def waited(self, value: Any) -> Any:
        """`value`, awaited where it is a coroutine."""
        return value if self.sync else await value

    async def request(self, method: str, url: str, **options: Any) -> Any:
        return await self.waited(self.client.request(method, url, **options))

    async def get(self, url: str, **options: Any) -> Any:
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> Any:
        return await self.request("POST", url, **options)

    async def send_streamed(self, method: str, url: str, **options: Any) -> Any:
        """A response whose body wasn't read."""
        request = self.client.build_request(method, url, **options)
        return await self.waited(self.client.send(request, stream=True))

    @contextlib.asynccontextmanager
    async def stream(self, method: str, url: str, **options: Any) -> AsyncIterator[Any]:
        context = self.client.stream(method, url, **options)
        if self.sync:
            with context as reply:
                yield reply
        else:
            async with context as reply:
                yield reply

    async def pieces(self, reply: Any) -> AsyncIterator[bytes]:
        if self.sync:
            for piece in reply.iter_bytes():
                yield piece
        else:
            async for piece in reply.aiter_bytes():
                yield piece

    async def read(self, reply: Any) -> bytes:
        content: bytes = await self.waited(reply.read() if self.sync else reply.aread())
        return content

    async def close(self, reply: Any) -> None:
        await self.waited(reply.close() if self.sync else reply.aclose())

    async def close_client(self) -> None:
        await self.waited(self.client.close() if self.sync else self.client.aclose())

    def body(self, pieces: Iterator[bytes]) -> Any:
        """A streamed request body of the kind the client takes."""
        return pieces if self.sync else _Pieces(pieces)

    async def fails(
        self, kind: type[CallError], url: str = "http://reviews/", method: str = "GET", **options: Any
    ) -> Any:
        """The error of a call that is expected to fail in this way."""
        with pytest.raises(kind) as caught:
            await self.request(method, url, **options)
        return caught.value

    async def eventually(self, condition: Callable[[], Any]) -> Any:
        return eventually(condition) if self.sync else await eventually_async(condition)


class _Pieces:
    """No async generator, which its event loop would want to see closed when an upload breaks off."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


Scenario = Callable[[Caller], Awaitable[None]]


class World:
    """The servers, the registry and the mesh of one test.

    Attributes:
        flavour: what `run` runs a scenario with.
    """

    def __init__(self, flavour: Flavour, state_dir: Path) -> None:
        self.flavour = flavour
        self.registry = MemoryRegistry()
        self.mesh = self.make_mesh(state_dir)
        self._state_dir = state_dir
        self._stack = contextlib.ExitStack()

    def make_mesh(self, state_dir: Path, **options: Any) -> Mesh:
        return Mesh(self.registry, state_dir=state_dir, **options)

    def configure(self, **options: Any) -> None:
        """Make the mesh with other arguments; before its first use."""
        self.mesh = self.make_mesh(self._state_dir, **options)

    @property
    def lib(self) -> Any:
        return self.flavour.client

    @property
    def sync(self) -> bool:
        return self.flavour.runs == "sync"

    def start(self, handler: Handler | bytes, tls: Any = None) -> Web:
        """A server nobody knows of, until the end of the test."""
        return self._stack.enter_context(Web(handler, tls))

    def serve(self, service: str, handler: Handler | bytes, **labels: str) -> Web:
        """A server that is registered as an instance of `service`."""
        web = self.start(handler)
        self.register(service, web.port, **labels)
        return web

    def register(self, service: str, port: int, **labels: str) -> None:
        at_once(self.registry.register(Instance(service, "127.0.0.1", port, id=f"{service}-{port}", labels=labels)))

    def withdraw(self, service: str, port: int) -> None:
        at_once(self.registry._remove(Instance(service, "127.0.0.1", port, id=f"{service}-{port}")))

    def apply(self, text: str) -> None:
        """Put documents into the registry."""
        loaded = load([Source("test.yaml", text.encode())], strict=True)
        assert not loaded.problems, "\n".join(map(str, loaded.problems))
        at_once(self.registry.apply(loaded.resources))

    def rule(self, http: str, host: str = "reviews") -> None:
        """A VirtualService of one rule (in YAML's flow style); without an action it goes to `host`."""
        if not any(f"{action}:" in http for action in ("route", "redirect", "directResponse")):
            http += f", route: [{{destination: {{host: {host}}}}}]"
        self._apply(ISTIO, "VirtualService", f"rule-{host}", f"{{hosts: [{host}], http: [{{{http}}}]}}")

    def traffic(self, policy: str) -> None:
        """A DestinationRule for reviews."""
        self._apply(ISTIO, "DestinationRule", "traffic", f"{{host: reviews, trafficPolicy: {{{policy}}}}}")

    def outbound(self, policy: str) -> None:
        """An OutboundPolicy for reviews."""
        self._apply("meshlib/v1", "OutboundPolicy", "outbound", f"{{host: reviews, {policy}}}")

    def _apply(self, version: str, kind: str, name: str, spec: str) -> None:
        self.apply(f"{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}}}, spec: {spec}}}")

    def closed_port(self) -> int:
        """A port that refuses connections until the end of the test."""
        bound = self._stack.enter_context(socket.socket())
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port

    def run(self, scenario: Scenario, *, transport: dict[str, Any] | None = None, **options: Any) -> None:
        """Run `scenario` with a client of this flavour; in the end nothing may be in flight.

        Args:
            scenario: what to do.
            transport: options of the mesh's transport.
            options: of the client.
        """

        async def main() -> None:
            caller = Caller(self.flavour, self.mesh, transport or {}, {"timeout": 10, **options})
            try:
                await scenario(caller)
            finally:
                await caller.close_client()
            assert self.in_flight() == 0

        self.mesh.open()
        self.run_plain(main)

    def run_plain(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self.sync:
            at_once(main())
        elif self.flavour.runs == "trio":
            anyio.run(main, backend="trio")
        else:
            asyncio.run(_then_settle(main))

    def in_flight(self) -> int:
        """Attempts whose ticket wasn't released."""
        plan = self.mesh.plan
        assert plan is not None
        return sum(state.active for cluster in plan.clusters.values() for state in cluster.endpoints)

    def close(self) -> None:
        self.mesh.close()
        self._stack.close()


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError(f"{coroutine!r} waited")


async def _then_settle(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await main()
    # Transports close their sockets in the next turn of the loop.
    await asyncio.sleep(0)


@pytest.fixture(params=[*SYNC, *ASYNC], ids=str)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world for each flavour of client."""
    yield from _world(request.param, tmp_path)


@pytest.fixture(params=ASYNC, ids=str)
def async_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world for each flavour of async client."""
    yield from _world(request.param, tmp_path)


@pytest.fixture(params=SYNC, ids=str)
def sync_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world for each flavour of sync client."""
    yield from _world(request.param, tmp_path)


def _world(flavour: Flavour, tmp_path: Path) -> Iterator[World]:
    world = World(flavour, tmp_path)
    try:
        yield world
    finally:
        world.close()
