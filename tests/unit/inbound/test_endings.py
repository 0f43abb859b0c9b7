"""When a request has ended, and what its permit does to request and response."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshlib import ASGIMiddleware, Mesh, WSGIMiddleware
from meshlib.inbound.denials import Permit
from meshlib.plan.inbound import Inbound
from meshlib.plan.plan import Plan

Message = dict[str, Any]


class Let:
    """A middleware that lets everything in by one permit, and notes how the requests end.

    Attributes:
        ended: the status at each end, and what had been sent by then.
    """

    def __init__(self, mesh: Mesh, prepare: Callable[[Permit], None] = lambda permit: None) -> None:
        self.mesh = mesh
        self.mesh.plan = Plan("1", {}, (), {}, inbound=Inbound("STRICT"))
        self.sent: list[Message] = []
        self.ended: list[tuple[int | None, int]] = []
        self._prepare = prepare

    def asgi(self, app: Any) -> ASGIMiddleware:
        middleware = ASGIMiddleware(app, self.mesh)
        middleware._gate.admission = self._admission  # type: ignore[method-assign]
        return middleware

    def wsgi(self, app: Any) -> WSGIMiddleware:
        middleware = WSGIMiddleware(app, self.mesh)
        middleware._gate.admission = self._admission  # type: ignore[method-assign]
        return middleware

    def _admission(self, *_: object) -> Any:
        permit = Permit()
        permit.on_end(lambda status, now: self.ended.append((status, len(self.sent))))
        self._prepare(permit)
        return permit
        yield

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    def scope(self, kind: str = "http", **more: Any) -> Message:
        return {"type": kind, "method": "GET", "path": "/", "headers": [(b"host", b"web")], "scheme": "http", **more}


def start(status: int = 200, **more: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"x-own", b"1")], **more}


def body(more: bool | None = None) -> Message:
    return {"type": "http.response.body", "body": b"part", **({} if more is None else {"more_body": more})}


RESPONSES: dict[str, tuple[list[Message], int]] = {
    "in one piece": ([start(), body()], 2),
    "streamed": ([start(206), body(True), body(True), body(False)], 4),
    "with early hints": ([{"type": "http.response.early_hint", "links": [b"<a>"]}, start(), body()], 3),
    "with a push": ([start(), {"type": "http.response.push", "path": "/a", "headers": []}, body()], 3),
    "a file": ([start(), {"type": "http.response.pathsend", "path": "/a"}], 2),
    "sent without copies": ([start(), {"type": "http.response.zerocopysend", "file": 3, "more_body": True}, body()], 3),
    "with trailers": (
        [
            start(trailers=True),
            body(),
            {"type": "http.response.trailers", "headers": [], "more_trailers": True},
            {"type": "http.response.trailers", "headers": []},
        ],
        4,
    ),
    "with more sent than there may be": ([start(), body(), body()], 2),
    "debug": ([{"type": "http.response.debug", "info": {}}, start(), body()], 3),
}


@pytest.mark.parametrize("case", RESPONSES)
def test_a_response_goes_out_as_without_us_and_ends_with_its_last_message(case: str, mesh: Mesh) -> None:
    messages, ends = RESPONSES[case]
    let = Let(mesh)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    asyncio.run(let.asgi(app)(let.scope(), let.receive, let.send))
    assert let.sent == messages
    status = next(message["status"] for message in messages if "status" in message)
    assert let.ended == [(status, ends)]


def test_what_an_application_does_after_its_response_is_no_part_of_the_request(mesh: Mesh) -> None:
    let = Let(mesh)
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body())
        seen.append(len(let.ended))

    asyncio.run(let.asgi(app)(let.scope(), let.receive, let.send))
    assert seen == [1]
    assert len(let.ended) == 1


@pytest.mark.parametrize("begun", [False, True])
def test_a_failed_application_has_ended(begun: bool, mesh: Mesh) -> None:
    let = Let(mesh)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if begun:
            await send(start())
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        asyncio.run(let.asgi(app)(let.scope(), let.receive, let.send))
    assert let.ended == [(200 if begun else None, int(begun))]


def test_a_cancelled_request_has_ended(mesh: Mesh) -> None:
    let = Let(mesh)
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        begun.set()
        await asyncio.Event().wait()

    async def run() -> None:
        task = asyncio.create_task(let.asgi(app)(let.scope(), let.receive, let.send))  # type: ignore[arg-type]
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert let.ended == [(200, 1)]


def test_a_server_whose_client_is_gone_ends_the_request(mesh: Mesh) -> None:
    let = Let(mesh)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body())

    async def gone(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError("the client is gone")
        let.sent.append(message)

    with pytest.raises(OSError, match="gone"):
        asyncio.run(let.asgi(app)(let.scope(), let.receive, gone))
    assert let.ended == [(200, 1)]


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([{"type": "websocket.accept"}, {"type": "websocket.send", "text": "hi"}], 101),
        ([{"type": "websocket.close", "code": 1000}], None),
        ([{"type": "websocket.http.response.start", "status": 404}, {"type": "websocket.http.response.body"}], 404),
    ],
)
def test_a_websocket_ends_with_its_application(messages: list[Message], status: int | None, mesh: Mesh) -> None:
    let = Let(mesh)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    scope = let.scope("websocket", scheme="ws")
    del scope["method"]
    asyncio.run(let.asgi(app)(scope, let.receive, let.send))
    assert let.sent == messages
    assert let.ended == [(status, len(messages))]


def replies(permit: Permit) -> None:
    permit.reply += [(b"x-own", b"ours"), (b"vary", b"origin"), (b"set-cookie", b"b=2")]


OWN = [("X-Own", "theirs"), ("Vary", "accept"), ("Set-Cookie", "a=1"), ("X-Other", "2")]
TOGETHER = [
    ("Vary", "accept"),
    ("Set-Cookie", "a=1"),
    ("X-Other", "2"),
    ("x-own", "ours"),
    ("vary", "origin"),
    ("set-cookie", "b=2"),
]


def raw(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


def test_headers_of_the_reply_replace_the_applications_own_but_where_they_add_up(mesh: Mesh) -> None:
    let = Let(mesh, replies)
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = start(headers=raw(OWN))
        await send(message)
        assert message["headers"] == raw(OWN), "the application's own message is its own"

    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", OWN)
        return []

    asyncio.run(let.asgi(app)(let.scope(), let.receive, let.send))
    let.wsgi(wsgi)(environ(), lambda status, headers: told.extend(headers))
    assert let.sent[0]["headers"] == raw(TOGETHER)
    assert told == TOGETHER


def changes(permit: Permit) -> None:
    permit.add += [(b"x-user", b"jason"), (b"x-role", b"a"), (b"x-role", b"b")]
    permit.remove.add(b"authorization")
    permit.query = b"c=d"


def test_the_application_sees_what_the_permit_says_in_every_writing_of_a_name(mesh: Mesh) -> None:
    let = Let(mesh, changes)
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    came = [("host", "web"), ("X-User", "root"), ("x_user", "root"), ("authorization", "secret"), ("x-kept", "1")]
    scope = let.scope(headers=raw(came), query_string=b"access_token=secret&c=d")
    asyncio.run(let.asgi(app)(scope, let.receive, let.send))
    ours = [("x-user", "jason"), ("x-role", "a"), ("x-role", "b")]
    assert seen[0]["headers"] == raw([("host", "web"), ("x-kept", "1"), *ours])
    assert seen[0]["query_string"] == b"c=d"
    assert scope["query_string"] == b"access_token=secret&c=d"


def environ(**more: Any) -> dict[str, Any]:
    return {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "gunicorn.socket": object(), "wsgi.url_scheme": "http", **more}


def test_a_wsgi_application_sees_what_the_permit_says(mesh: Mesh) -> None:
    let = Let(mesh, changes)
    seen: list[dict[str, Any]] = []
    came = {
        "HTTP_X_USER": "root",
        "HTTP_AUTHORIZATION": "secret",
        "HTTP_X_KEPT": "1",
        "QUERY_STRING": "access_token=secret&c=d",
        "RAW_URI": "/?access_token=secret&c=d",
    }

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        return []

    let.wsgi(app)(environ(**came), lambda *_: None)
    (found,) = seen
    assert (found["HTTP_X_USER"], found["HTTP_X_ROLE"], found["HTTP_X_KEPT"]) == ("jason", "a,b", "1")
    assert "HTTP_AUTHORIZATION" not in found
    assert (found["QUERY_STRING"], found["RAW_URI"]) == ("c=d", "/?c=d")


class Made:
    """A WSGI application whose body is made as it is asked for."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.closed = 0

    def __call__(self, environ: Any, start_response: Any) -> Made:
        start_response("207 Multi-Status", [])
        return self

    def __iter__(self) -> Iterator[bytes]:
        yield b"one"
        if self.fails:
            raise ValueError("a bug")
        yield b"two"

    def close(self) -> None:
        self.closed += 1


def serve(let: Let, app: Any) -> Any:
    return let.wsgi(app)(environ(), lambda *_: None)


def test_a_finished_wsgi_body_has_ended_and_stays_what_it_is(mesh: Mesh) -> None:
    let = Let(mesh)
    made = [b"one"]

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("201 Created", [])
        return made

    assert serve(let, app) is made
    assert let.ended == [(201, 0)]


def test_a_wsgi_body_ends_once_when_it_is_exhausted_and_closed(mesh: Mesh) -> None:
    let, app = Let(mesh), Made()
    found = serve(let, app)
    parts = iter(found)
    assert next(parts) == b"one"
    assert let.ended == []
    assert list(parts) == [b"two"]
    assert let.ended == [(207, 0)]
    found.close()
    assert app.closed == 1
    assert len(let.ended) == 1


def test_a_wsgi_body_that_is_closed_early_has_ended(mesh: Mesh) -> None:
    let, app = Let(mesh), Made()
    found = serve(let, app)
    next(iter(found))
    found.close()
    assert (let.ended, app.closed) == ([(207, 0)], 1)


def test_a_wsgi_body_that_is_forgotten_has_ended(mesh: Mesh) -> None:
    let = Let(mesh)
    next(iter(serve(let, Made())))
    gc.collect()
    assert let.ended == [(207, 0)]


def test_a_wsgi_body_that_fails_has_ended(mesh: Mesh) -> None:
    let = Let(mesh)
    with pytest.raises(ValueError, match="a bug"):
        list(serve(let, Made(fails=True)))
    assert let.ended == [(207, 0)]


def test_a_wsgi_application_that_fails_has_ended(mesh: Mesh) -> None:
    let = Let(mesh)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        serve(let, app)
    assert let.ended == [(None, 0)]


def test_a_lifespan_and_what_is_unknown_go_by(mesh: Mesh) -> None:
    let = Let(mesh)
    called: list[tuple[Any, ...]] = []

    async def app(*arguments: Any) -> None:
        called.append(arguments)

    for kind in ("lifespan", "something.new"):
        scope = {"type": kind}
        asyncio.run(let.asgi(app)(scope, let.receive, let.send))
        assert called.pop() == (scope, let.receive, let.send)
    assert let.ended == []
