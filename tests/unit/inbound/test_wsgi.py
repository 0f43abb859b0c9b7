"""The WSGI middleware, called as a server calls it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from meshlib import Mesh, WSGIMiddleware
from meshlib.context import INHERITED, Inherited

ATTEMPT = {"HTTP_X_ENVOY_ATTEMPT_COUNT": "2"}
INHERITS = Inherited(attempt=2)


class Body:
    """Makes its parts as they are asked for, and notes what is inherited whenever it is called."""

    def __init__(self) -> None:
        self.inherited: list[Inherited] = []
        self.closed: list[Inherited] = []

    def __iter__(self) -> Iterator[bytes]:
        for part in (b"one", b"two"):
            self.inherited.append(INHERITED.get())
            yield part

    def close(self) -> None:
        self.closed.append(INHERITED.get())


def answering(body: Iterable[bytes]) -> Callable[..., Iterable[bytes]]:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return body

    return app


def never(*_: object) -> Any:
    raise AssertionError("nothing may be called")


def test_the_application_inherits_while_it_is_called(mesh: Mesh) -> None:
    seen: list[Inherited] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(INHERITED.get())
        return [b""]

    WSGIMiddleware(app, mesh)(ATTEMPT, never)
    assert seen == [INHERITS]
    assert INHERITED.get() == Inherited()


def test_the_application_inherits_while_its_body_is_made_and_closed(mesh: Mesh) -> None:
    made = Body()
    body: Any = WSGIMiddleware(answering(made), mesh)(ATTEMPT, never)
    parts = []
    for part in body:
        assert INHERITED.get() == Inherited()
        parts.append(part)
    body.close()
    assert parts == [b"one", b"two"]
    assert made.inherited == [INHERITS, INHERITS]
    assert made.closed == [INHERITS]
    assert INHERITED.get() == Inherited()


def test_a_body_that_is_never_read_is_closed_all_the_same(mesh: Mesh) -> None:
    made = Body()
    body: Any = WSGIMiddleware(answering(made), mesh)({}, never)
    body.close()
    assert made.inherited == []
    assert made.closed == [Inherited()]


def test_a_body_without_close_can_be_closed(mesh: Mesh) -> None:
    body: Any = WSGIMiddleware(answering(iter([b"one"])), mesh)({}, never)
    assert list(body) == [b"one"]
    body.close()


@pytest.mark.parametrize("body", [[b"one"], (b"one",), FileWrapper(io.BytesIO(b"one"))])
def test_a_body_that_is_ready_reaches_the_server_as_it_is(body: Iterable[bytes], mesh: Mesh) -> None:
    assert WSGIMiddleware(answering(body), mesh)({"wsgi.file_wrapper": FileWrapper}, never) is body


def test_an_exception_reaches_the_server_and_the_context_is_left(mesh: Mesh) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        WSGIMiddleware(app, mesh)(ATTEMPT, never)
    assert INHERITED.get() == Inherited()


def test_the_application_gets_the_servers_own_environ_and_start_response(mesh: Mesh) -> None:
    called: list[tuple[Any, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        called.append((environ, start_response))
        return []

    environ: dict[str, Any] = {"REQUEST_METHOD": "GET"}
    WSGIMiddleware(app, mesh)(environ, never)
    assert called == [(environ, never)]
    assert called[0][0] is environ


def test_the_trace_is_taken_over(mesh: Mesh) -> None:
    made = Body()
    environ = {"HTTP_TRACEPARENT": "00-é", "HTTP_COOKIE": "secret"}
    list(WSGIMiddleware(answering(made), mesh)(environ, never))
    assert made.inherited[0].trace == ((b"traceparent", "00-é".encode("latin-1")),)


def test_expired_work_is_refused_and_the_application_never_hears_of_it(mesh: Mesh) -> None:
    started: list[tuple[str, dict[str, str]]] = []
    app = WSGIMiddleware(never, mesh)
    (body,) = app(
        {"HTTP_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS": "0"}, lambda status, headers: started.append((status, dict(headers)))
    )
    ((status, headers),) = started
    assert status.startswith("504 ")
    assert headers["x-meshlib-reason"] == "DT"
    assert int(headers["content-length"]) == len(body)
