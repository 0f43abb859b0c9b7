"""An ASGI service that tells what it sees, and can ask another."""

from __future__ import annotations

import os

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import meshlib

client = meshlib.AsyncClient()


async def seen(request: Request) -> JSONResponse:
    return JSONResponse({"pid": os.getpid(), "left": meshlib.remaining(), "headers": dict(request.headers)})


async def relay(request: Request) -> JSONResponse:
    reply = await client.get(f"http://{request.path_params['service']}/seen")
    return JSONResponse(reply.json(), reply.status_code)


async def work(request: Request) -> JSONResponse:
    await request.body()
    await anyio.sleep(0.01)
    return JSONResponse({"pid": os.getpid()})


app = Starlette(
    routes=[
        Route("/seen", seen),
        Route("/relay/{service}", relay),
        Route("/work", work, methods=["POST"]),
    ],
    middleware=[Middleware(meshlib.ASGIMiddleware)],
)


async def without_lifespan(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    if scope["type"] == "lifespan":
        raise ValueError("this application knows no lifespan")
    await app.router(scope, receive, send)


no_lifespan = meshlib.ASGIMiddleware(without_lifespan)
