"""Callers who don't wait for each other: requests come when they come, whether or not the last was answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

__all__ = ["Reply", "Stream", "percentile", "play", "throughput"]

MOST_OPEN = 900


class Stream(NamedTuple):
    """Requests of one priority: `rate` a second."""

    priority: str
    rate: float


class Reply(NamedTuple):
    """What came of one request; status 0: nothing in time."""

    priority: str
    status: int
    seconds: float


class Connection(asyncio.Protocol):
    """One connection to the server, kept alive, for one request at a time."""

    def __init__(self) -> None:
        self.open = False
        self.answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.open = True

    def ask(self, request: bytes) -> asyncio.Future[int]:
        self.answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self.answer

    def data_received(self, data: bytes) -> None:
        # The server writes a small response in one or two pieces; the head comes first.
        if data.startswith(b"HTTP/1.1 ") and self.answer is not None and not self.answer.done():
            self._status = int(data[9:12])
        if not data.endswith(b"\r\n\r\n") and self.answer is not None and not self.answer.done():
            self.answer.set_result(self._status)

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(0)

    def close(self) -> None:
        self.open = False
        self._transport.abort()


class Callers:
    """A pool of connections to one port."""

    def __init__(self, port: int, deadline: float) -> None:
        self._port = port
        self._deadline = deadline
        self._idle: list[Connection] = []
        self._open = 0

    async def call(self, priority: str) -> Reply:
        """One request, with nothing more waited for after the deadline."""
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        status = 0
        if self._open >= MOST_OPEN and not self._idle:
            await asyncio.sleep(self._deadline)
            return Reply(priority, 0, self._deadline)
        self._open += 1
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._deadline):
                while self._idle and connection is None:
                    connection = self._idle.pop()
                    self._open -= 1
                    connection = connection if connection.open else None
                if connection is None:
                    _, connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
                status = await connection.ask(
                    b"GET / HTTP/1.1\r\nhost: bench\r\nx-meshlib-priority: %b\r\n\r\n" % priority.encode()
                )
        except (TimeoutError, OSError):
            status = 0
        finally:
            if connection is not None and status:
                self._idle.append(connection)
            else:
                self._open -= 1
                if connection is not None:
                    connection.close()
        return Reply(priority, status, time.perf_counter() - began)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


async def play(port: int, streams: Sequence[Stream], seconds: float, deadline: float, settle: float) -> list[Reply]:
    """Call for `seconds`, by chance at the streams' rates; what came of the requests after the first `settle` seconds.

    Args:
        port: of the server.
        streams: what is called.
        seconds: to call for.
        deadline: seconds a caller waits.
        settle: seconds that don't count.
    """
    callers, random = Callers(port, deadline), Random(1)
    total = sum(stream.rate for stream in streams)
    loop = asyncio.get_running_loop()
    begun = at = loop.time()
    tasks: list[tuple[float, asyncio.Task[Reply]]] = []
    while at < begun + seconds:
        at += random.expovariate(total)
        if (wait := at - loop.time()) > 0:
            await asyncio.sleep(wait)
        [stream] = random.choices(streams, [one.rate for one in streams])
        tasks.append((at - begun, asyncio.create_task(callers.call(stream.priority))))
    replies = [(instant, await task) for instant, task in tasks]
    callers.close()
    return [reply for instant, reply in replies if instant >= settle]


async def throughput(port: int, callers: int, seconds: float) -> float:
    """Good answers a second when `callers` call one after another."""
    pool = Callers(port, 30.0)
    ends = time.perf_counter() + seconds

    async def one() -> int:
        done = 0
        while time.perf_counter() < ends:
            done += (await pool.call("default")).status == 200
        return done

    begun = time.perf_counter()
    done = sum(await asyncio.gather(*(one() for _ in range(callers))))
    pool.close()
    return done / (time.perf_counter() - begun)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values don't exceed; 0.0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0
