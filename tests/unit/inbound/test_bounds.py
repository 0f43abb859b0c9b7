"""What is too much of a request, on both middlewares."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.inbound import Kind, Request, Side, get


def bounds(**fields: int) -> str:
    return json.dumps(
        {
            "apiVersion": "meshlib/v1",
            "kind": "InboundPolicy",
            "metadata": {"name": "bounds"},
            "spec": {"requestBounds": fields},
        }
    )


MORE = [("x-one", "1"), ("x-two", "2")]


@pytest.mark.parametrize(("most", "status"), [(3, 200), (2, 431)])
def test_more_headers_than_the_bound_are_refused(most: int, status: int, kind: Kind) -> None:
    reply = Side(kind, bounds(maxHeaders=most)).ask(get("/", *MORE))
    assert reply.status == status
    assert reply.code == ("SIZE" if status == 431 else "")
    assert (reply.seen is None) == (status == 431)


def test_the_bytes_of_headers_are_those_of_their_lines(kind: Kind) -> None:
    size = len("host: reviews\r\nx-one: 1\r\nx-two: 2\r\n")
    assert Side(kind, bounds(maxHeaderBytes=size)).ask(get("/", *MORE)).status == 200
    assert Side(kind, bounds(maxHeaderBytes=size - 1)).ask(get("/", *MORE)).status == 431


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "status"), [(0, 200), (10, 200), (11, 413), (1000, 413)])
def test_a_longer_body_is_refused_whether_it_says_so_or_not(size: int, status: int, chunked: bool, kind: Kind) -> None:
    reply = Side(kind, bounds(maxBodyBytes=10)).ask(Request("POST", body=b"x" * size, chunked=chunked))
    assert reply.status == status
    assert (reply.seen is None) == (status == 413)
    if status == 413:
        assert reply.code == "SIZE"
        assert json.loads(reply.body)["status"] == 413
        assert b"10" not in reply.body
    else:
        assert reply.seen is not None
        assert len(reply.seen.body) == size


def test_a_length_that_is_beyond_any_number_is_beyond_the_bound(kind: Kind) -> None:
    assert Side(kind, bounds(maxBodyBytes=10)).ask(get("/", ("content-length", "9" * 5000))).status == 413


class ASGI:
    """An application that answers before it has read its body, behind a bound of ten bytes."""

    def __init__(self) -> None:
        self.side = Side("asgi", bounds(maxBodyBytes=10))
        self.side.asgi.app = self.app
        self.heard: list[str] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            message = await receive()
            self.heard.append(message["type"])
            if message["type"] == "http.disconnect":
                break
        await send({"type": "http.response.body", "body": b"all is well"})
        raise ConnectionError("what frameworks raise for a caller that is gone")


def test_a_body_that_gets_too_long_after_the_answer_began_is_cut_off() -> None:
    asgi = ASGI()
    sent: list[dict[str, Any]] = []
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "scheme": "http", "client": None}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 6, "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(asgi.side.asgi(scope, receive, send))
    assert asgi.heard == ["http.request", "http.disconnect"]
    assert [message["type"] for message in sent] == ["http.response.start"]


READS: dict[str, Callable[[Any], object]] = {
    "read": lambda body: body.read(),
    "read in parts": lambda body: [*iter(lambda: body.read(4), b"")],
    "readline": lambda body: [*iter(body.readline, b"")],
    "readlines": lambda body: body.readlines(),
    "iterate": lambda body: [*body],
}


def serve(app: Any, body: bytes) -> tuple[list[str], bytes]:
    """What a WSGI server gets of an application behind a bound of ten bytes."""
    side = Side("wsgi", bounds(maxBodyBytes=10))
    side.wsgi.app = app
    statuses: list[str] = []
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input": io.BytesIO(body),
        "wsgi.url_scheme": "http",
        "gunicorn.socket": object(),
    }
    made = side.wsgi(environ, lambda status, headers, exc_info=None: statuses.append(status))
    whole = b"".join(made)
    if (close := getattr(made, "close", None)) is not None:
        close()
    return statuses, whole


@pytest.mark.parametrize("way", READS)
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("caught", [False, True])
def test_whichever_way_a_body_is_read_what_the_caller_gets_is_the_refusal(way: str, lazy: bool, caught: bool) -> None:
    def handle(environ: dict[str, Any], start_response: Any) -> bytes:
        try:
            READS[way](environ["wsgi.input"])
        except OSError:
            if not caught:
                raise
            start_response("500 Internal Server Error", [])
            return b"an error page of the framework's"
        start_response("200 OK", [])
        return b"fine"

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        return made(environ, start_response) if lazy else [handle(environ, start_response)]

    def made(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        yield handle(environ, start_response)

    assert serve(app, b"12345\n789\n") == (["200 OK"], b"fine")
    statuses, body = serve(app, b"12345\n789\nx")
    assert statuses == ["413 Request Entity Too Large"]
    assert json.loads(body)["status"] == 413


def test_a_wsgi_body_that_gets_too_long_after_the_answer_began_is_cut_off() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        environ["wsgi.input"].read()
        yield b"never"

    with pytest.raises(OSError, match="longer"):
        serve(app, b"x" * 11)


@pytest.mark.parametrize(("size", "status"), [(3, "200 OK"), (11, "413 Request Entity Too Large")])
def test_what_the_application_made_is_closed_once_whatever_is_answered(size: int, status: str) -> None:
    closed: list[bool] = []

    class Made:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"fine"])

        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start_response: Any) -> Made:
        with contextlib.suppress(OSError):
            environ["wsgi.input"].read()
        start_response("200 OK", [])
        return Made()

    assert serve(app, b"x" * size)[0] == [status]
    assert closed == [True]
