"""`python authorizer.py`: an external authorizer under uvicorn. The end of the path says what it makes of a request.

What it was asked it tells in `x-authz-asked`, whatever it answers. It prints its port when it listens.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any

import uvicorn

PLAIN = (b"content-type", b"text/plain")


async def app(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    path = scope["raw_path"].decode()
    asked = {
        "method": scope["method"],
        "path": path,
        "query": scope["query_string"].decode(),
        "headers": {name.decode(): value.decode("latin-1") for name, value in scope["headers"]},
        "body": body.decode("latin-1"),
    }
    told = (b"x-authz-asked", json.dumps(asked).encode())
    behaviour = path.rpartition("/")[2]
    if behaviour == "hang":
        await asyncio.sleep(30)
    elif behaviour == "die":
        os._exit(3)
    elif behaviour == "long":
        await send({"type": "http.response.start", "status": 403, "headers": [told]})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    elif behaviour == "trickle":
        await send({"type": "http.response.start", "status": 403, "headers": [told]})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.05)
    status, headers, words = {
        "deny": (403, [PLAIN, (b"x-secret", b"s3cret")], b"go away"),
        "login": (302, [(b"location", b"https://login.test/?next=1")], b""),
        "who": (401, [(b"www-authenticate", b'Basic realm="mesh"')], b"who are you?"),
        "broken": (503, [], b"I can't say"),
        "many": (200, [(b"x-many", b"1")] * 150, b""),
        "many-deny": (403, [(b"x-many", b"1")] * 150, b""),
    }.get(behaviour, (200, [(b"x-user", b"jason"), (b"set-cookie", b"seen=1"), (b"x-other", b"1")], b"fine"))
    await send({"type": "http.response.start", "status": status, "headers": [told, *headers]})
    await send({"type": "http.response.body", "body": words})


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


if __name__ == "__main__":
    Server(uvicorn.Config(app, port=0, log_level="critical", access_log=False, lifespan="off")).run()
