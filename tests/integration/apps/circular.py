"""`python circular.py`: a service that is its own authorizer, and counts what reaches its application."""

from __future__ import annotations

from typing import Any

import uvicorn

import meshlib

reached = 0


async def bare(scope: Any, receive: Any, send: Any) -> None:
    global reached  # noqa: PLW0603 - one for the process
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    reached += scope["path"] != "/reached"
    known = sum(len(cluster.endpoints) for cluster in meshlib.default_mesh().explain("GET", "http://circle/").clusters)
    headers = [(b"x-reached", b"%d" % reached), (b"x-known", b"%d" % known)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(meshlib.ASGIMiddleware(bare), port=0)
