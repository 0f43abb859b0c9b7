"""The services of the demo: plain ASGI applications, each in a process of its own.

    python -m meshlib.cli.demo.services reviews

MESHLIB_* variables say the rest. The process ends when its standard input does: whoever started it is gone then.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx

import meshlib

__all__ = ["SERVICES"]

Json = dict[str, Any]
Answer = Callable[[httpx.AsyncClient, Json], Awaitable[Json]]

VERSION = meshlib.default_mesh().settings.labels.get("version", "")
END_USER = "end-user"
"""The header that says who is asking; passed on to reviews, whose routes look at it."""


class Service:
    """An ASGI application that answers every request with the JSON that `answer` makes."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._client = meshlib.AsyncClient()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answer = await self._answer(self._client, headers)
        body = json.dumps(answer | {"caller": scope.get("meshlib.peer")}).encode()
        length = (b"content-length", str(len(body)).encode())
        start = {"type": "http.response.start", "status": 200}
        await send(start | {"headers": [(b"content-type", b"application/json"), length]})
        await send({"type": "http.response.body", "body": body})

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._client.aclose()
        await send({"type": "lifespan.shutdown.complete"})


async def ask(client: httpx.AsyncClient, url: str, headers: Json | None = None) -> Json:
    """What a service answers, or why it doesn't, and what the mesh knows of the call."""
    began = time.monotonic()
    try:
        reply = await client.get(url, headers=headers)
        answer: Json = reply.json() if reply.status_code == 200 else {"error": str(reply.status_code)}
        known = reply.extensions["meshlib"].evidence(time.monotonic())
    except meshlib.CallError as error:
        answer, known = {"error": error.reason}, error.evidence
    retries = max(len(known.attempts) - 1, 0) + answer.get("retries", 0)
    return {**answer, "seconds": time.monotonic() - began, "retries": retries, "configuration": known.version}


async def productpage(client: httpx.AsyncClient, headers: Json) -> Json:
    """The page of a book, whole or with a hole where a service is missing."""
    user = {END_USER: headers[END_USER]} if END_USER in headers else None
    details, reviews = await asyncio.gather(ask(client, "http://details/"), ask(client, "http://reviews/", user))
    return {"title": "The Comedy of Errors", "details": details, "reviews": reviews}


async def details(client: httpx.AsyncClient, headers: Json) -> Json:
    """What is printed on the first pages of a book."""
    return {"author": "William Shakespeare", "pages": 200}


async def reviews(client: httpx.AsyncClient, headers: Json) -> Json:
    """Reviews; v1 knows no stars, v2 shows them in black and v3 in red."""
    said = {"version": VERSION, "process": os.getpid(), "text": "An extremely entertaining play."}
    if VERSION == "v1":
        return said
    ratings = await ask(client, "http://ratings/")
    colour = {"v2": "black"}.get(VERSION, "red")
    return said | {"stars": ratings.get("stars"), "colour": colour, "retries": ratings["retries"]}


async def ratings(client: httpx.AsyncClient, headers: Json) -> Json:
    """Stars."""
    return {"stars": 5}


SERVICES: dict[str, Answer] = {
    "productpage": productpage,
    "details": details,
    "reviews": reviews,
    "ratings": ratings,
}


def main() -> None:
    """Serve one of SERVICES on a free port until told to end."""
    import uvicorn  # an extra of the demo

    threading.Thread(target=_end_with_parent, name="watchdog", daemon=True).start()
    app: Any = meshlib.ASGIMiddleware(Service(SERVICES[sys.argv[1]]))
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="warning", lifespan="on", timeout_graceful_shutdown=2
    )
    config.load()
    if meshlib.default_mesh().identity is not None:
        config.ssl = meshlib.server_ssl_context()
    uvicorn.Server(config).run()


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
