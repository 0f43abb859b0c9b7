"""A server that issues tokens: key sets and OpenID configurations over real sockets, with every fault one may have."""

from __future__ import annotations

import json
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.authority import Authority

__all__ = ["IssuingServer"]

Answer = Callable[[BaseHTTPRequestHandler], None]


class IssuingServer:
    """Answers on a port of 127.0.0.1, until `close`.

    Args:
        authority: vouches for it, None: it speaks HTTP.

    Attributes:
        url: of it, the issuer.
        asked: the paths of requests.
    """

    def __init__(self, authority: Authority | None = None) -> None:
        self.asked: list[str] = []
        self._answers: dict[str, Answer] = {}
        self._open = True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                server._answers.get(self.path, status(404))(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that has had enough goes; that is what is tried here."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        if authority is not None:
            self._server.socket = _context(authority).wrap_socket(self._server.socket, server_side=True)
        host = "http://127.0.0.1" if authority is None else "https://localhost"
        self.url = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="issuer")
        self._thread.start()

    def close(self) -> None:
        """Stop; whoever asks from now on is refused by the machine."""
        if self._open:
            self._open = False
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def put(self, path: str, answer: object) -> None:
        """Answer `path` so: with this JSON, these bytes, or by this function."""
        if callable(answer):
            self._answers[path] = answer
        else:
            self._answers[path] = body(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def discover(self, **more: object) -> None:
        """Have an OpenID configuration that leads to `/keys`."""
        self.put("/.well-known/openid-configuration", {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **more})


def body(content: bytes, **headers: str) -> Answer:
    def answer(request: Any) -> None:
        request.send_response(200)
        for name, value in {"content-type": "application/json", **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("content-length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def status(code: int, location: str = "") -> Answer:
    def answer(request: Any) -> None:
        request.send_response(code)
        if location:
            request.send_header("location", location)
        request.send_header("content-length", "0")
        request.end_headers()

    return answer


def dripping(content: bytes, pause: float) -> Answer:
    """A byte at a time, for as long as somebody listens."""

    def answer(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        for byte in content:
            request.wfile.write(bytes([byte]))
            request.wfile.flush()
            time.sleep(pause)

    return answer


def endless(request: Any) -> None:
    """More and more, for as long as somebody takes it."""
    request.send_response(200)
    request.end_headers()
    for _ in range(1000):
        request.wfile.write(b" " * 65536)


def closing(request: Any) -> None:
    """Hang up without a word."""
    request.close_connection = True


def _context(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = authority.issue(names=["localhost"])
    with tempfile.TemporaryDirectory() as folder:
        certificates, key = Path(folder) / "certificates.pem", Path(folder) / "key.pem"
        certificates.write_bytes(issued.certificates)
        key.write_bytes(issued.key)
        context.load_cert_chain(certificates, key)
    return context
