"""A meshed HTTP/1.1 server that misbehaves when it is told to; see `fleet`. With MESHLIB_IDENTITY it takes mTLS.

It says `ready <port>` once it is registered, and obeys one word a line: `ok`, `503`, `hang`, `reset-accept` and
`reset-request` set what it does from now on; `count` answers how many requests it has read, by method. It ends when its
input does.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import sys
from collections import Counter
from typing import cast

from meshlib import Mesh, server_ssl_context
from tests.support import eventually_async

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
RESET = struct.pack("ii", 1, 0)


class State:
    def __init__(self, name: str) -> None:
        self.name = name
        self.mode = "ok"
        self.counts: Counter[str] = Counter()

    def obey(self, word: str) -> None:
        if word == "count":
            print(json.dumps(self.counts), flush=True)
        else:
            self.mode = word


class Connection(asyncio.Protocol):
    def __init__(self, state: State) -> None:
        self.state = state
        self.pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.state.mode == "reset-accept":
            self.reset()

    def data_received(self, data: bytes) -> None:
        self.pending += data
        while b"\r\n\r\n" in self.pending:
            head, _, rest = self.pending.partition(b"\r\n\r\n")
            length = int(found[1]) if (found := LENGTH.search(head)) else 0
            if len(rest) < length:
                return
            self.pending = rest[length:]
            self.answer(head)

    def answer(self, head: bytes) -> None:
        state = self.state
        state.counts[head.split(b" ", 1)[0].decode()] += 1
        if state.mode.startswith("reset"):
            self.reset()
            return
        if state.mode == "hang":
            return
        status = b"503 Service Unavailable" if state.mode == "503" else b"200 OK"
        body = state.name.encode()
        self.transport.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()


async def main(registry: str, state_dir: str, service: str, version: str) -> None:
    loop = asyncio.get_running_loop()
    state = State(version)
    mesh = Mesh(registry, service=service, labels={"version": version}, state_dir=state_dir)
    context = None if mesh.identity is None else await asyncio.to_thread(server_ssl_context, mesh)
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    mesh.serve(("127.0.0.1", port))
    await eventually_async(lambda: mesh.status().registered, timeout=20)
    print("ready", port, flush=True)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        state.obey(line.decode().strip())
    await asyncio.to_thread(mesh.close)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
