"""`python drowning.py FD KIND DOCUMENTS`: one worker that can serve little, in the mesh if there are documents.

KIND is `computing` (20 ms of the processor a request, on the event loop) or `waiting` (100 ms with one of 10
connections).
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

import meshlib

COMPUTES = 0.02
CONNECTIONS, HOLDS = 10, 0.1

Work = Callable[[], Awaitable[None]]


async def compute() -> None:
    """Take the processor, and let nobody else on the event loop."""
    ends = time.thread_time() + COMPUTES
    while time.thread_time() < ends:
        pass


def waiting() -> Work:
    """Work with one of few connections."""
    connections = asyncio.Semaphore(CONNECTIONS)

    async def wait() -> None:
        async with connections:
            await asyncio.sleep(HOLDS)

    return wait


def app_of(work: Work) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        await work()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


def main(number: int, kind: str, documents: str) -> None:
    app = app_of(compute if kind == "computing" else waiting())
    if documents:
        mesh = meshlib.Mesh(f"file://{documents}")
        mesh.ready()
        app = meshlib.ASGIMiddleware(app, mesh)
    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run([socket.socket(fileno=number)])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")
