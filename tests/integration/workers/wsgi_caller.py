"""A WSGI application that calls another service, the first time already when it is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import meshlib

client = meshlib.Client()
loaded = client.get("http://reviews/").text


def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {loaded} {client.get('http://reviews/').text}".encode()]


application = meshlib.WSGIMiddleware(answer)
