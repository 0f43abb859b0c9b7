"""An ASGI application that calls another service, the first time already when it is loaded."""

from __future__ import annotations

import os
from typing import Any

import meshlib

client = meshlib.AsyncClient()
loaded = meshlib.Client().get("http://reviews/").text


async def answer(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    text = f"{os.getpid()} {loaded} {(await client.get('http://reviews/')).text}"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text.encode()})


application = meshlib.ASGIMiddleware(answer)
