"""A WSGI service that tells what it sees, and can ask another."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request

import meshlib

app = Flask(__name__)
client = meshlib.Client()


@app.get("/seen")
def seen() -> dict[str, Any]:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return {"pid": os.getpid(), "left": meshlib.remaining(), "headers": headers}


@app.get("/relay/<service>")
def relay(service: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(f"http://{service}/seen").json()
    return answer


@app.get("/streamed/<service>")
def streamed(service: str) -> Response:
    def parts() -> Iterator[str]:
        yield json.dumps(client.get(f"http://{service}/seen").json())

    return Response(parts(), content_type="application/json")


@app.post("/work")
def work() -> dict[str, Any]:
    request.get_data()
    time.sleep(0.01)
    return {"pid": os.getpid()}


app.wsgi_app = meshlib.WSGIMiddleware(app.wsgi_app)  # type: ignore[method-assign]
