"""A service that has opened its mesh, and made a call, when it is loaded: with --preload before its workers fork."""

from __future__ import annotations

import itertools
import json
import os
from typing import Any

import meshlib

client = meshlib.Client()
asynchronous = meshlib.AsyncClient()
loaded = client.get("http://reviews/").json()["peer"]
serials = itertools.count(1)


def told(peer: str | None, reply: Any) -> bytes:
    """Who has called us, and as whom `reviews` knows us: when this was loaded, and now."""
    connection = f"{os.getpid()}-{next(serials)}"
    known_as = [loaded, reply.json()["peer"]]
    return json.dumps({"peer": peer, "connection": connection, "pid": os.getpid(), "known_as": known_as}).encode()


def bare_wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = told(environ["meshlib.peer"], client.get("http://reviews/"))
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = told(scope["meshlib.peer"], await asynchronous.get("http://reviews/"))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


app = meshlib.ASGIMiddleware(bare)
application = meshlib.WSGIMiddleware(bare_wsgi)
