"""`python guarded.py`: a service under uvicorn that says who called it, and from which port of theirs."""

from __future__ import annotations

import json
from typing import Any

import uvicorn

import meshlib


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = json.dumps({"caller": scope["meshlib.peer"], "from": scope["client"][1]}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        meshlib.ASGIMiddleware(bare),
        port=0,
        access_log=False,
        ssl_context_factory=lambda config, default: meshlib.server_ssl_context(),
    )
