"""The mesh under a client of httpx2: sync, then async.

MESHLIB_SERVICE=reviews uvicorn --app-dir examples starlette_app:app --port 8001
python examples/httpx2_client.py reviews
"""

from __future__ import annotations

import asyncio
import sys

import httpx2

import meshlib

service = sys.argv[1] if len(sys.argv) > 1 else "reviews"
mesh = meshlib.Mesh()


async def main() -> None:
    async with httpx2.AsyncClient(transport=mesh.async_transport(httpx2)) as client:
        reply = await client.get(f"http://{service}/2")
        print(reply.status_code, reply.text)


with httpx2.Client(transport=mesh.transport(httpx2)) as client:
    reply = client.get(f"http://{service}/1")
    print(reply.status_code, reply.text)
asyncio.run(main())
