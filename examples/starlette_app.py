"""A Starlette service in the mesh: `reviews`. Start it twice, and callers share the two.

    MESHLIB_SERVICE=reviews MESHLIB_LABELS=version=v1 uvicorn --app-dir examples starlette_app:app --port 8001
    MESHLIB_SERVICE=reviews MESHLIB_LABELS=version=v2 uvicorn --app-dir examples starlette_app:app --port 8002
    python examples/batch.py reviews

`meshlib apply -f examples/mesh.yaml` sends a tenth of the calls to v2.
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import meshlib


async def reviews(request: Request) -> JSONResponse:
    product = request.path_params["product"]
    return JSONResponse({"product": product, "stars": 1 + product % 5, "served by": os.getpid()})


app = Starlette(
    routes=[Route("/{product:int}", reviews)],
    middleware=[Middleware(meshlib.ASGIMiddleware)],
)
