"""The ASGI middleware, called as a server calls it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import anyio
import pytest

from meshlib import ASGIMiddleware, Mesh
from meshlib.context import INHERITED, Inherited

EXPIRED = (b"x-envoy-expected-rq-timeout-ms", b"0")
ATTEMPT = (b"x-envoy-attempt-count", b"2")


class App:
    """Notes what it is called with, and what it inherits."""

    def __init__(self, error: Exception | None = None) -> None:
        self.called: list[tuple[Any, Any, Any]] = []
        self.inherited: list[Inherited] = []
        self._error = error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.called.append((scope, receive, send))
        self.inherited.append(INHERITED.get())
        if self._error is not None:
            raise self._error


class Server:
    def __init__(self, messages: Iterable[dict[str, Any]] = ()) -> None:
        self.sent: list[dict[str, Any]] = []
        self._messages = list(messages)

    async def receive(self) -> dict[str, Any]:
        return self._messages.pop(0)

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def scope(kind: str, *headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {"type": kind, "headers": [(b"host", b"web"), *headers], **more}


def serve(app: ASGIMiddleware, request: dict[str, Any], server: Server) -> Inherited:
    """Call the application; return what is in the context afterwards."""

    async def run() -> Inherited:
        await app(request, server.receive, server.send)
        return INHERITED.get()

    return anyio.run(run)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_the_application_inherits_for_the_time_of_the_request(kind: str, mesh: Mesh) -> None:
    app = App()
    assert serve(ASGIMiddleware(app, mesh), scope(kind, ATTEMPT), Server()) == Inherited()
    assert app.inherited == [Inherited(attempt=2)]


@pytest.mark.parametrize("kind", ["http", "websocket", "lifespan", "something.new"])
def test_the_application_gets_the_servers_own_scope_receive_and_send(kind: str, mesh: Mesh) -> None:
    app, server, request = App(), Server(), scope(kind)
    serve(ASGIMiddleware(app, mesh), request, server)
    (called,) = app.called
    assert called[0] is request
    assert called[1:] == (server.receive, server.send)


@pytest.mark.parametrize("kind", ["http", "websocket", "lifespan"])
def test_an_exception_reaches_the_server_and_the_context_is_left(kind: str, mesh: Mesh) -> None:
    app = ASGIMiddleware(App(ValueError("a bug")), mesh)

    async def run() -> Inherited:
        server = Server()
        with pytest.raises(ValueError, match="a bug"):
            await app(scope(kind, ATTEMPT), server.receive, server.send)
        return INHERITED.get()

    assert anyio.run(run) == Inherited()


def test_expired_work_is_refused_and_the_application_never_hears_of_it(mesh: Mesh) -> None:
    app, server = App(), Server()
    serve(ASGIMiddleware(app, mesh), scope("http", EXPIRED), server)
    start, body = server.sent
    headers = dict(start["headers"])
    assert app.called == []
    assert start["status"] == 504
    assert headers[b"x-meshlib-reason"] == b"DT"
    assert headers[b"content-type"] == b"application/problem+json"
    assert int(headers[b"content-length"]) == len(body["body"])
    assert b"deadline" in body["body"]


def test_an_expired_websocket_is_refused_with_a_response_where_the_server_can_send_one(mesh: Mesh) -> None:
    app, server = App(), Server([{"type": "websocket.connect"}])
    serve(ASGIMiddleware(app, mesh), scope("websocket", EXPIRED, extensions={"websocket.http.response": {}}), server)
    assert app.called == []
    assert [message["type"] for message in server.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]


def test_an_expired_websocket_is_closed_where_the_server_knows_nothing_else(mesh: Mesh) -> None:
    app, server = App(), Server([{"type": "websocket.connect"}])
    serve(ASGIMiddleware(app, mesh), scope("websocket", EXPIRED), server)
    assert app.called == []
    assert server.sent == [{"type": "websocket.close", "code": 1013}]
