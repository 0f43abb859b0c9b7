"""A service that tells who calls it and how often it was called, for ASGI and for WSGI."""

from __future__ import annotations

import itertools
import json
import os
from typing import Any

import meshlib

calls = itertools.count(1)


def seen(view: dict[str, Any], scheme: str, forwarded: str | None) -> bytes:
    told = {"peer": view.get("meshlib.peer", "untold"), "scheme": scheme, "forwarded": forwarded}
    return json.dumps({**told, "calls": next(calls), "pid": os.getpid()}).encode()


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    forwarded = dict(scope["headers"]).get(b"x-forwarded-client-cert", b"").decode() or None
    body = seen(scope, scope["scheme"], forwarded)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": body.decode()})
        await send({"type": "websocket.close"})
        return
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


def bare_wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = seen(environ, environ["wsgi.url_scheme"], environ.get("HTTP_X_FORWARDED_CLIENT_CERT"))
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]


app = meshlib.ASGIMiddleware(bare)


def wsgi() -> meshlib.WSGIMiddleware:
    return meshlib.WSGIMiddleware(bare_wsgi)
