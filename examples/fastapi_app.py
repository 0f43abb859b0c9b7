"""A FastAPI service in the mesh: it is `web`, and calls `reviews`.

    MESHLIB_SERVICE=web uvicorn --app-dir examples fastapi_app:app --port 8000
    MESHLIB_SERVICE=reviews uvicorn --app-dir examples starlette_app:app --port 8001
    python examples/batch.py web

The deadline, the attempt count and the trace of a request travel on to the calls made while serving it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, HTTPException, Request

import meshlib


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with meshlib.AsyncClient() as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(meshlib.ASGIMiddleware)


@app.get("/{product}")
async def page(product: int, request: Request) -> dict[str, object]:
    try:
        with meshlib.deadline(1.0):
            reply = await request.app.state.client.get(f"http://reviews/{product}")
    except httpx.HTTPError as error:
        raise HTTPException(503, "no reviews just now") from error
    return {"product": product, "reviews": reply.json()}
