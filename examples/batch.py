"""A script that calls a service of the mesh by its name. There is nothing to open, and nothing to close.

MESHLIB_SERVICE=reviews uvicorn --app-dir examples starlette_app:app --port 8001
python examples/batch.py reviews
"""

from __future__ import annotations

import sys

import httpx

import meshlib

service = sys.argv[1] if len(sys.argv) > 1 else "reviews"
client = meshlib.Client()

for product in range(3):
    try:
        reply = client.get(f"http://{service}/{product}")
    except httpx.HTTPError as error:
        # Notes say, for one, that the mesh doesn't know the service.
        sys.exit("\n".join([f"{service} can't be called: {error}", *getattr(error, "__notes__", ())]))
    print(reply.status_code, reply.text.strip())
