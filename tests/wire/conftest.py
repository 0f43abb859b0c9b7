"""One way to write a scenario, and every kind of channel to run it on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import anyio
import pytest

from meshlib.wire.blocking import SyncChannel
from meshlib.wire.channel import AsyncChannel
from meshlib.wire.fallback import AsyncFallbackChannel, SyncFallbackChannel
from meshlib.wire.message import Reply, Request, Timing
from meshlib.wire.portable import PortableChannel

PATIENT = Timing(connect=10, read=10, write=10)


class Answer:
    """A response read to its end."""

    def __init__(self, reply: Reply[Any], body: bytes) -> None:
        self.status = reply.status
        self.reason = reply.reason
        self.version = reply.http_version
        self.headers = reply.headers
        self.body = body


class Client:
    """A channel of any kind behind one set of coroutines; those of a blocking channel never wait."""

    def __init__(self, flavour: Flavour, port: int, **options: Any) -> None:
        self.channel = flavour.channel(port, **options)
        self._sync = flavour.sync

    async def send(self, request: Request, timing: Timing = PATIENT) -> Reply[Any]:
        reply = self.channel.send(request, timing)
        return reply if self._sync else await reply

    async def pieces(self, reply: Reply[Any]) -> list[bytes]:
        return list(reply.body) if self._sync else [piece async for piece in reply.body]

    async def first(self, reply: Reply[Any]) -> bytes:
        return next(iter(reply.body)) if self._sync else await anext(aiter(reply.body))

    async def close(self, reply: Reply[Any]) -> None:
        await self.waited(reply.body.close() if self._sync else reply.body.aclose())

    async def waited(self, value: Any) -> Any:
        """`value`, awaited where it is a coroutine."""
        return value if self._sync else await value

    async def call(
        self,
        target: bytes = b"/",
        *,
        method: bytes = b"GET",
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: Any = None,
        resend: bool = False,
        timing: Timing = PATIENT,
    ) -> Answer:
        request = Request(method, target, [(b"Host", b"reviews"), *headers], body, resend=resend)
        reply = await self.send(request, timing)
        try:
            return Answer(reply, b"".join(await self.pieces(reply)))
        finally:
            await self.close(reply)


Scenario = Callable[[Client], Awaitable[None]]


class Flavour:
    """A kind of channel and how to run a coroutine that uses it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sync = name in {"blocking", "fallback-blocking"}
        self.fallback = name.startswith("fallback")

    def channel(self, port: int, *, host: str = "127.0.0.1", **options: Any) -> Any:
        if self.fallback:
            kind = SyncFallbackChannel if self.sync else AsyncFallbackChannel
            return kind(host, port, **{"scheme": "http", "authority": "reviews", **options})
        kinds = {"asyncio": AsyncChannel, "uvloop": AsyncChannel, "blocking": SyncChannel}
        return kinds.get(self.name, PortableChannel)(host, port, **options)

    def run(self, port: int, scenario: Scenario, **options: Any) -> None:
        """Run `scenario` on a fresh channel, which is closed after it."""

        async def main() -> None:
            client = Client(self, port, **options)
            try:
                await scenario(client)
            finally:
                client.channel.close()

        self.run_plain(main)

    def run_plain(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self.sync:
            try:
                main().send(None)
            except StopIteration:
                return
            raise AssertionError("a blocking channel waited as if it were not one")
        if self.name.endswith("trio"):
            anyio.run(main, backend="trio")
        elif self.name == "uvloop":
            uvloop = pytest.importorskip("uvloop")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_then_settle(main))
        else:
            asyncio.run(_then_settle(main))


async def _then_settle(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await main()
    # Transports close their sockets in the next turn of the loop.
    await asyncio.sleep(0)


LEAN = ("asyncio", "blocking", "trio", "anyio-asyncio")
ALL = (*LEAN, "fallback-asyncio", "fallback-trio", "fallback-blocking")


@pytest.fixture(params=LEAN)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Each of our own HTTP/1.1 channels."""
    return Flavour(request.param)


@pytest.fixture(params=(*LEAN, "uvloop"))
def tls_flavour(request: pytest.FixtureRequest) -> Flavour:
    """Each of our own channels, on each event loop whose TLS is another."""
    return Flavour(request.param)


@pytest.fixture(params=ALL)
def any_flavour(request: pytest.FixtureRequest) -> Flavour:
    """Each channel, those over httpcore included."""
    return Flavour(request.param)


def soon(seconds: float = 0.05) -> float:
    """The monotonic instant `seconds` from now."""
    return time.monotonic() + seconds
