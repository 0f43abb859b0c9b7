"""A FastAPI service that serves mTLS, and plain text on the same port until PeerAuthentication says STRICT.

    consul agent -dev
    export MESHLIB_REGISTRY=consul://127.0.0.1:8500 MESHLIB_IDENTITY=consul
    MESHLIB_SERVICE=reviews python examples/mtls_app.py 8001
    MESHLIB_SERVICE=web python examples/batch.py reviews

It answers with who called, by the caller's certificate. `MESHLIB_IDENTITY=files:///etc/mesh` does without Consul.
"""

from __future__ import annotations

import ssl
import sys

import uvicorn
from fastapi import FastAPI, Request

import meshlib

app = FastAPI()
app.add_middleware(meshlib.ASGIMiddleware)


@app.get("/{product}")
async def review(product: int, request: Request) -> dict[str, object]:
    return {"product": product, "stars": 4, "caller": request.scope["meshlib.peer"]}


def context(*_: object) -> ssl.SSLContext:
    """uvicorn asks for this one instead of making its own."""
    return meshlib.server_ssl_context()


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), ssl_context_factory=context)
