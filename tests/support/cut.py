"""A network to break: a proxy in front of a server on loopback that refuses, goes silent, slows down or talks rubbish.

with Cut(agent.address) as cut:
    mesh = Mesh(registry=f"consul://{cut.address}")
    cut.silence()          # packets are lost: connections stay open, nothing comes through
    cut.heal()             # and go on where they stood
    cut.refuse()           # connections are reset, the open ones and the new ones
    cut.slow(0.2)          # 0.2 s of delay each way
    cut.slow(0.1, size=1)  # a trickle: a byte each 0.1 s
    cut.garble(half_json)  # each answer is changed; see the functions below, or write one of your own
"""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import re
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

__all__ = [
    "Cut",
    "Reply",
    "bomb",
    "deep",
    "half_json",
    "html",
    "huge",
    "index",
    "no_index",
    "null",
    "server_error",
    "truncated",
]

CHUNK = 65_536
RESET = struct.pack("ii", 1, 0)  # linger for no time: closing resets
ASKING = 10.0  # seconds that the server may take over a request whose answer is garbled


@dataclasses.dataclass(frozen=True)
class Reply:
    """An HTTP answer that is on its way to the client.

    Attributes:
        status: e.g. 200.
        headers: without those of the framing.
        body: its bytes, or pieces of them.
        length: what `Content-Length` says; None: what `body` has, or nothing when that is pieces.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | Iterable[bytes]
    length: int | None = None


Change = Callable[[Reply], Reply]
"""What is done to the server's answer."""


class Cut:
    """A proxy for HTTP/1.1 without TLS on a port of its own; healthy until it is told otherwise.

    What is told holds when the method returns. `garble`, `refuse` and what ends them reset the open connections.

    Args:
        target: `host:port` of the server.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._change: Change | None = None
        self._refusing = False
        self._pause = 0.0
        self._size = CHUNK
        self._connections: set[asyncio.Task[None]] = set()
        self.answered = 0
        """How many garbled answers were given."""
        started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(started),), name=f"cut before {target}")
        self._thread.start()
        started.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def address(self) -> str:
        """`host:port` where it listens."""
        return f"127.0.0.1:{self._port}"

    def heal(self) -> None:
        """Pass everything on again, at once."""
        self._do(self._set())

    def silence(self) -> None:
        """Lose everything; connections stay open, and new ones are taken."""
        self._do(self._set(silent=True))

    def refuse(self) -> None:
        """Reset connections."""
        self._do(self._set(refusing=True))

    def slow(self, pause: float, size: int = CHUNK) -> None:
        """Wait `pause` seconds before each `size` bytes, either way."""
        self._do(self._set(pause=pause, size=size))

    def garble(self, change: Change) -> None:
        """Change each answer. A blocking query is answered at once, as if something had happened."""
        self._do(self._set(change=change))

    def close(self) -> None:
        """Reset what is open, and end."""
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(ASKING)

    async def _run(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self._passing = asyncio.Event()
        self._passing.set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port: int = server.sockets[0].getsockname()[1]
        started.set()
        await self._ending.wait()
        server.close()
        await self._reset()
        await asyncio.sleep(0)  # what was accepted a moment ago is turned away

    async def _set(
        self,
        *,
        silent: bool = False,
        refusing: bool = False,
        pause: float = 0.0,
        size: int = CHUNK,
        change: Change | None = None,
    ) -> None:
        resetting = (refusing, change) != (self._refusing, self._change)
        self._refusing, self._pause, self._size, self._change = refusing, pause, size, change
        if resetting:
            await self._reset()
        if silent:
            self._passing.clear()
        else:
            self._passing.set()

    async def _reset(self) -> None:
        open_now = list(self._connections)
        for connection in open_now:
            connection.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._ending.is_set():
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._connection(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # also of one that was cancelled before it began

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._change is not None:
                await self._answer(reader, writer, self._change)
            elif not self._refusing:
                await self._relay(reader, writer)
        except (OSError, http.client.HTTPException, asyncio.IncompleteReadError):
            pass  # one side is gone: so is the other, now
        finally:
            if not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passing.wait()
        from_server, to_server = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, to_server))
                both.create_task(self._pump(from_server, writer))
            writer.close()
            await writer.wait_closed()
        except* OSError:
            pass
        finally:
            to_server.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK):
            while data:
                if self._pause:
                    await asyncio.sleep(self._pause)
                await self._passing.wait()
                piece, data = data[: self._size], data[self._size :]
                sink.write(piece)
                await sink.drain()
        await self._passing.wait()
        sink.write_eof()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Change) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = line.split(" ")
        said = await asyncio.to_thread(self._ask, method, path, body, headers)
        reply = change(said)
        self.answered += 1
        writer.write(_head(reply))
        for piece in [reply.body] if isinstance(reply.body, bytes) else reply.body:
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        await reader.read()  # what a client hasn't read yet is lost when the connection is reset

    def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        passed_on = {name: headers[name] for name in ("x-consul-token", "content-type") if name in headers}
        connection = http.client.HTTPConnection(*self._target, timeout=ASKING)
        try:
            connection.request(method, _at_once(path), body or None, passed_on)
            answer = connection.getresponse()
            framing = {"content-length", "transfer-encoding", "connection"}
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in framing}
            return Reply(answer.status, kept, answer.read())
        finally:
            connection.close()


def _at_once(path: str) -> str:
    """Return the path without what would make Consul wait for a change."""
    where, _, query = path.partition("?")
    return f"{where}?{'&'.join(part for part in query.split('&') if not re.match(r'(index|wait)=', part))}"


def _head(reply: Reply) -> bytes:
    headers = dict(reply.headers) | {"Connection": "close"}
    length = len(reply.body) if reply.length is None and isinstance(reply.body, bytes) else reply.length
    if length is not None:
        headers["Content-Length"] = str(length)
    lines = [f"HTTP/1.1 {reply.status} -", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def truncated(reply: Reply) -> Reply:
    """Half of the body, of which `Content-Length` announces the whole."""
    body = _whole(reply)
    return dataclasses.replace(reply, body=body[: len(body) // 2], length=len(body))


def half_json(reply: Reply) -> Reply:
    """Half of the body, and nothing else wrong."""
    body = _whole(reply)
    return dataclasses.replace(reply, body=body[: len(body) // 2])


def html(reply: Reply) -> Reply:
    """The page of a proxy between us and Consul, with the status of success and Consul's headers."""
    headers = {**reply.headers, "Content-Type": "text/html"}
    return dataclasses.replace(reply, headers=headers, body=b"<html><body><h1>It works!</h1></body></html>")


def server_error(reply: Reply) -> Reply:
    """What Consul says while it has no leader."""
    return Reply(500, {"Content-Type": "text/plain"}, b"No cluster leader")


def null(reply: Reply) -> Reply:
    """JSON of no use: Go's word for a list that was never made."""
    return dataclasses.replace(reply, body=b"null")


def deep(reply: Reply) -> Reply:
    """JSON that is nested without end."""
    return dataclasses.replace(reply, body=b"[" * 1_000_000)


def index(number: int) -> Change:
    """The right answer with this index: 0, or one that went backwards."""
    return lambda reply: dataclasses.replace(reply, headers={**_without_index(reply), "X-Consul-Index": str(number)})


def no_index(reply: Reply) -> Reply:
    """The right answer without its index."""
    return dataclasses.replace(reply, headers=_without_index(reply))


def huge(size: int) -> Change:
    """An endless list: `size` bytes of JSON that begins well."""
    return lambda reply: dataclasses.replace(reply, body=_spaces(size), length=size)


def bomb(size: int) -> Change:
    """The same, packed into a thousandth."""

    def packed() -> Iterator[bytes]:
        packer = zlib.compressobj(wbits=31)
        for piece in _spaces(size):
            yield packer.compress(piece)
        yield packer.flush()

    return lambda reply: dataclasses.replace(
        reply, headers={**reply.headers, "Content-Encoding": "gzip"}, body=packed()
    )


def _spaces(size: int) -> Iterator[bytes]:
    yield b"["
    left = size - 1
    while left > 0:
        yield b" " * min(left, CHUNK)
        left -= CHUNK


def _whole(reply: Reply) -> bytes:
    return reply.body if isinstance(reply.body, bytes) else b"".join(reply.body)


def _without_index(reply: Reply) -> dict[str, str]:
    return {name: value for name, value in reply.headers.items() if name.lower() != "x-consul-index"}
