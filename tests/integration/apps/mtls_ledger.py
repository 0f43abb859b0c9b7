"""A service on uvicorn that keeps a ledger of who called it, on which connection: `python mtls_ledger.py`.

With MESHLIB_IDENTITY it takes mTLS. LEDGER_HANDSHAKE is asyncio's bound on a handshake, in seconds.
"""

from __future__ import annotations

import asyncio.constants
import itertools
import json
import os
import weakref
from collections import Counter
from typing import Any

import uvicorn

import meshlib

ledger: Counter[str] = Counter()
paths: Counter[str] = Counter()
serials = itertools.count(1)
connections: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def entry(scope: Any, receive: Any) -> dict[str, Any]:
    peer = scope.get("meshlib.peer")
    ledger[peer or "nobody"] += 1
    paths[scope["path"]] += 1
    transport = receive.__self__.transport
    if transport not in connections:
        connections[transport] = next(serials)
    forwarded = dict(scope["headers"]).get(b"x-forwarded-client-cert", b"").decode() or None
    return {
        "peer": peer,
        "scheme": scope["scheme"],
        "forwarded": forwarded,
        "connection": f"{os.getpid()}-{connections[transport]}",
    }


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    told = {"ledger": ledger, "paths": paths} if scope["path"] == "/ledger" else entry(scope, receive)
    body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    asyncio.constants.SSL_HANDSHAKE_TIMEOUT = float(os.environ.get("LEDGER_HANDSHAKE", "60"))
    secured = meshlib.default_mesh().identity is not None
    uvicorn.run(
        meshlib.ASGIMiddleware(app),
        port=0,
        loop="asyncio",
        access_log=False,
        ssl_context_factory=(lambda config, default: meshlib.server_ssl_context()) if secured else None,
    )
