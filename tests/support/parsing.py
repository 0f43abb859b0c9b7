"""Real servers' own parsing in front of an application, without a network: bytes of a request in, an answer out.

    answer = asgi_servers(app)["uvicorn, h11"](b"GET /x HTTP/1.1\\r\\nhost: reviews\\r\\n\\r\\n")

Where a server refuses the bytes, no application is called, and the answer is what it is, also b"".
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from gunicorn.config import Config as GunicornConfig
from gunicorn.http.errors import ParseException
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState
from werkzeug.serving import WSGIRequestHandler

__all__ = ["Answer", "asgi_servers", "wsgi_servers"]

Answer = Callable[[bytes], bytes]
"""From the bytes of a request to those of the answer: of an ASGI server with its head, of a WSGI one the body."""

CLIENT = ("127.0.0.1", 50000)
"""Whom gunicorn trusts with SCRIPT_NAME, if it trusts anybody."""

SERVER = ("127.0.0.1", 8080)


def asgi_servers(app: Any) -> Mapping[str, Answer]:
    """uvicorn with each of its parsers."""
    return {"uvicorn, h11": _uvicorn(H11Protocol, app), "uvicorn, httptools": _uvicorn(HttpToolsProtocol, app)}


def wsgi_servers(app: Any) -> Mapping[str, Answer]:
    """gunicorn, and the server that Flask is developed with."""
    return {"gunicorn": _gunicorn(app), "werkzeug": _werkzeug(app)}


def _uvicorn(protocol_class: Any, app: Any) -> Answer:
    config = Config(app, lifespan="off", log_config=None, ws="none", access_log=False)
    config.load()

    async def ask(request: bytes) -> bytes:
        state = ServerState()
        protocol = protocol_class(config, state, {}, asyncio.get_running_loop())
        transport = _Transport()
        protocol.connection_made(transport)
        protocol.data_received(request)
        while state.tasks:
            await asyncio.gather(*state.tasks)
        protocol.timeout_keep_alive_task and protocol.timeout_keep_alive_task.cancel()
        protocol.connection_lost(ConnectionResetError())
        return bytes(transport.written)

    return lambda request: asyncio.run(ask(request))


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"sockname": SERVER, "peername": CLIENT})
        self.written = bytearray()
        self._closing = False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, parts: Any) -> None:
        self.written += b"".join(parts)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def _gunicorn(app: Any) -> Answer:
    config = GunicornConfig()

    def ask(request: bytes) -> bytes:
        try:
            parsed = next(RequestParser(config, iter([request]), CLIENT))
            _, environ = create(parsed, object(), CLIENT, SERVER, config)
        except (ParseException, StopIteration):
            return b""
        except Exception as error:  # noqa: BLE001 - what create() raises is whatever it stumbled over
            return repr(error).encode()
        return _called(app, environ)

    return ask


def _werkzeug(app: Any) -> Answer:
    class Handler(WSGIRequestHandler):
        def log(self, *_: Any) -> None:
            """Nothing."""

    server = SimpleNamespace(ssl_context=None, multithread=False, multiprocess=False, server_address=SERVER)

    def ask(request: bytes) -> bytes:
        handler: Any = Handler.__new__(Handler)
        handler.rfile, handler.wfile = io.BytesIO(request), io.BytesIO()
        handler.server, handler.client_address, handler.connection = server, CLIENT, object()
        handler.raw_requestline = handler.rfile.readline(65537)
        if not handler.parse_request():
            return b""
        try:
            environ = handler.make_environ()
        except ValueError:  # what urlsplit() makes of a broken address
            return b""
        return _called(app, environ)

    return ask


def _called(app: Any, environ: dict[str, Any]) -> bytes:
    body = app(environ, lambda status, headers, exc_info=None: lambda data: None)
    try:
        return b"".join(body)
    finally:
        if (close := getattr(body, "close", None)) is not None:
            close()
