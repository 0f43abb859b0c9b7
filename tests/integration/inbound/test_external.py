"""An authorizer in a process of its own, asked by both middlewares: it allows, refuses, hangs, dies, talks nonsense."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import pytest
import trio

from meshlib.plan.compile import compile_plan
from meshlib.plan.snapshot import Snapshot
from meshlib.registries.base import Instance
from meshlib.resources import Source, load
from meshlib.state.store import StateStore
from tests.support.inbound import SERVICE, Kind, Reply, Request, Side, get

FOLDER = Path(__file__).parent
DOCUMENTS = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: ask}}
spec:
  action: CUSTOM
  provider: {{name: authz}}
  rules: [{{to: [{{operation: {{paths: ["/guarded/*"]}}}}]}}]
---
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {{name: inbound}}
spec:
  extensionProviders:
  - name: authz
    envoyExtAuthzHttp: {authorizer}
"""
CALLER = "spiffe://mesh.test/ns/default/sa/web"
Where = Literal["in the mesh", "outside"]


@contextlib.contextmanager
def authorizer() -> Iterator[int]:
    """One of its own process; its port."""
    with subprocess.Popen([sys.executable, FOLDER / "authorizer.py"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with authorizer() as found:
        yield found


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: Any) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(params=["in the mesh", "outside"])
def where(request: Any) -> Where:
    found: Where = request.param
    return found


@contextlib.contextmanager
def asking(kind: Kind, where: Where, port: int, **options: Any) -> Iterator[Side]:
    """A service whose guarded paths an authorizer is asked about: a registered one, or one the mesh doesn't know."""
    service = "authz" if where == "in the mesh" else "127.0.0.1"
    # A machine that is busy elsewhere must not make an answer late that isn't.
    settings = {"service": service, "port": 80 if where == "in the mesh" else port, "timeout": "3s", **options}
    loaded = load([Source("the test", DOCUMENTS.format(authorizer=json.dumps(settings)).encode())])
    assert not loaded.problems, [problem.message for problem in loaded.problems]
    snapshot = Snapshot((Instance("authz", "127.0.0.1", port),), tuple(loaded.resources), "v1")
    side = Side(kind)
    side.mesh.plan = compile_plan(
        snapshot, "default", StateStore(), monotonic(), lambda: 0.5, service=SERVICE, labels={"version": "v1"}
    )
    try:
        yield side
    finally:
        side.mesh.close()


def asked(reply: Reply) -> dict[str, Any]:
    """What the authorizer says it was asked."""
    found: dict[str, Any] = json.loads(reply.headers["x-authz-asked"])
    return found


TELLING = {"headersToDownstreamOnAllow": ["x-authz-asked", "set-cookie"]}


def test_the_authorizer_is_asked_as_envoy_asks(kind: Kind, where: Where, port: int) -> None:
    options = {
        "pathPrefix": "/check",
        "includeRequestHeadersInCheck": ["Cookie", "x-team-*", "x-forwarded-client-cert", "connection"],
        "includeAdditionalHeadersInCheck": {"x-from": "mesh", "x-team-b": "ours"},
    }
    with asking(kind, where, port, **options, **TELLING) as side:
        headers = [
            ("authorization", "Bearer abc"), ("cookie", "a=1"), ("x-team-a", "red"), ("x-team-b", "theirs"),
            ("x-private", "1"), ("x-forwarded-for", "10.9.9.9"), ("connection", "x-team-a"),
            ("x-forwarded-client-cert", "URI=spiffe://mesh.test/ns/default/sa/admin"),
        ]  # fmt: skip
        request = Request("POST", "/guarded/caf%C3%A9?a=%2F&b", headers, b"the body", peer=CALLER)
        question = asked(side.ask(request))
    assert (question["method"], question["path"], question["query"]) == ("POST", "/check/guarded/caf%C3%A9", "a=%2F&b")
    assert question["body"] == ""
    given = question["headers"]
    assert given["host"] == SERVICE
    assert (given["authorization"], given["cookie"], given["x-team-a"]) == ("Bearer abc", "a=1", "red")
    assert (given["x-from"], given["x-team-b"]) == ("mesh", "ours")
    assert given["x-forwarded-for"] == "192.0.2.7", "as it was seen, not as it was written"
    assert given["x-forwarded-client-cert"] == f"URI={CALLER}"
    assert given["x-meshlib-check"] == "1"
    assert "x-private" not in given
    assert "x-team-a" not in given.get("connection", "")


def test_headers_of_an_authorizer_that_allows_go_where_they_should(kind: Kind, where: Where, port: int) -> None:
    with asking(kind, where, port, headersToUpstreamOnAllow=["x-user"], **TELLING) as side:
        reply = side.ask(get("/guarded/allow", ("x-user", "made up")))
    assert reply.status == 200
    assert reply.seen is not None
    assert reply.seen.headers["x-user"] == "jason"
    assert "x-other" not in reply.seen.headers
    assert reply.headers["set-cookie"] == "seen=1"
    assert "x-user" not in reply.headers


@pytest.mark.parametrize(
    ("path", "status", "body", "header"),
    [
        ("deny", 403, b"go away", ("x-secret", "s3cret")),
        ("login", 302, b"", ("location", "https://login.test/?next=1")),
        ("who", 401, b"who are you?", ("www-authenticate", 'Basic realm="mesh"')),
    ],
)
def test_a_refusal_is_the_authorizers_own_answer(
    path: str, status: int, body: bytes, header: tuple[str, str], kind: Kind, where: Where, port: int
) -> None:
    with asking(kind, where, port) as side:
        reply = side.ask(get(f"/guarded/{path}"))
    assert (reply.status, reply.body, reply.code, reply.seen) == (status, body, "RBAC", None)
    assert reply.headers[header[0]] == header[1]


def test_of_a_refusal_the_caller_sees_the_headers_that_are_named(kind: Kind, port: int) -> None:
    with asking(kind, "in the mesh", port, headersToDownstreamOnDeny=["x-nothing"]) as side:
        reply = side.ask(get("/guarded/deny"))
    assert "x-secret" not in reply.headers
    assert reply.headers["content-type"] == "text/plain"


def test_what_no_custom_policy_fits_is_asked_of_nobody(kind: Kind, port: int) -> None:
    with asking(kind, "in the mesh", port, **TELLING) as side:
        reply = side.ask(get("/free/deny"))
    assert reply.status == 200
    assert "x-authz-asked" not in reply.headers


@pytest.mark.parametrize("path", ["hang", "broken", "many"])
def test_who_cannot_be_asked_lets_nobody_in_unless_told_to(path: str, kind: Kind, where: Where, port: int) -> None:
    bound = {"timeout": "200ms"} if path == "hang" else {}
    with asking(kind, where, port, statusOnError=503, **bound) as side:
        began = monotonic()
        reply = side.ask(get(f"/guarded/{path}"))
        assert (reply.status, reply.code, reply.seen) == (503, "RBAC", None)
        assert monotonic() - began < 2.5
    with asking(kind, where, port, failOpen=True, **bound) as side:
        assert side.ask(get(f"/guarded/{path}")).status == 200


@pytest.mark.parametrize("path", ["long", "trickle", "many-deny"])
def test_a_refusal_in_an_unreadable_answer_is_one(path: str, kind: Kind, where: Where, port: int) -> None:
    # A trickle lasts until the time is over; of the others only the head has to come in time.
    with asking(kind, where, port, failOpen=True, timeout="1s" if path == "trickle" else "10s") as side:
        began = monotonic()
        reply = side.ask(get(f"/guarded/{path}"))
        assert (reply.status, reply.seen) == (403, None)
        assert monotonic() - began < 20  # all of the trickle takes 50


def test_an_authorizer_that_dies_is_missed_and_found_again(kind: Kind, where: Where) -> None:
    with authorizer() as port, asking(kind, where, port) as side:
        assert side.ask(get("/guarded/allow")).status == 200
        assert side.ask(get("/guarded/die")).status == 403
        assert side.ask(get("/guarded/allow")).status == 403
    with authorizer() as port, asking(kind, where, port) as side:
        assert side.ask(get("/guarded/allow")).status == 200


@contextlib.contextmanager
def talking(answer: bytes) -> Iterator[int]:
    """What accepts one connection, and says always the same; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n",
        b"HTTP/1.1 200 OK\r\n\x00: x\r\n\r\n",
    ],
    ids=["another protocol", "nothing", "half a head", "a header with NUL"],
)
def test_nonsense_is_no_leave_to_come_in(answer: bytes, kind: Kind, where: Where) -> None:
    with talking(answer) as port, asking(kind, where, port, timeout="1s") as side:
        reply = side.ask(get("/guarded/allow"))
    assert (reply.status, reply.seen) == (403, None)


@pytest.mark.parametrize(
    "request_",
    [
        get("/guarded/../guarded/allow"),
        get("/guarded//allow"),
        get("/guarded/%2e%2e/allow"),
        get("/guarded/allow", ("host", "reviews"), ("host", "admin")),
        get("/guarded/allow", ("x-meshlib-check", "3")),
        get("/guarded/allow", ("x-meshlib-check", "-1")),
        get("/guarded/allow", ("script-name", "/guarded")),
        get("/guarded/allow?" + "a" * 70_000),
        get("/guarded/allow", ("x-envoy-expected-rq-timeout-ms", "0")),
    ],
)
def test_a_caller_cannot_make_an_authorizer_that_fails_open_fail(request_: Request, kind: Kind, port: int) -> None:
    with asking(kind, "in the mesh", port, failOpen=True) as side:
        reply = side.ask(request_)
    assert reply.status in {400, 403, 504}
    assert reply.seen is None


def test_a_deadline_that_runs_out_while_asking_lets_nobody_in(kind: Kind, where: Where, port: int) -> None:
    with asking(kind, where, port, failOpen=True) as side:
        reply = side.ask(get("/guarded/hang", ("x-envoy-expected-rq-timeout-ms", "100")))
    assert (reply.status, reply.seen) == (504, None)


BODY = {"includeRequestBodyInCheck": {"maxRequestBytes": 10}}
PARTIAL = {"includeRequestBodyInCheck": {"maxRequestBytes": 10, "allowPartialMessage": True}}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("options", "body", "seen", "partial"),
    [
        (BODY, b"", "", "false"),
        (BODY, b"123456789", "123456789", "false"),
        (BODY, b"1234567890", "1234567890", "false"),
        (PARTIAL, b"12345678901", "1234567890", "true"),
        (PARTIAL, b"x" * 100_000, "x" * 10, "true"),
    ],
)
def test_authorizer_and_application_both_see_the_body(
    options: dict[str, Any], body: bytes, seen: str, partial: str, chunked: bool, kind: Kind, port: int
) -> None:
    with asking(kind, "in the mesh", port, **options, **TELLING) as side:
        reply = side.ask(Request("POST", "/guarded/allow", body=body, chunked=chunked))
    question = asked(reply)
    assert (question["body"], question["headers"]["x-envoy-auth-partial-body"]) == (seen, partial)
    assert reply.seen is not None
    assert reply.seen.body == body


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_the_authorizer_cannot_see_whole_is_too_long(chunked: bool, kind: Kind, port: int) -> None:
    with asking(kind, "in the mesh", port, failOpen=True, **BODY) as side:
        reply = side.ask(Request("POST", "/guarded/allow", body=b"12345678901", chunked=chunked))
    assert (reply.status, reply.code, reply.seen) == (413, "SIZE", None)


def test_on_trio_an_authorizer_is_asked_alike(where: Where, port: int) -> None:
    with asking("asgi", where, port, timeout="500ms", **TELLING) as side:
        allowed = trio.run(side.aask, get("/guarded/allow"))
        hung = trio.run(side.aask, get("/guarded/hang"))
    assert asked(allowed)["path"] == "/guarded/allow"
    assert (hung.status, hung.seen) == (403, None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_asks_by_connections_of_its_own(port: int) -> None:
    with asking("wsgi", "in the mesh", port) as side:
        assert side.ask(get("/guarded/allow")).status == 200
        plan = side.mesh.plan
        child = os.fork()
        if not child:
            code = 1
            try:
                side.mesh.plan = plan  # a child waits for its own; here it is shown by what it asks
                reply = side.ask(get("/guarded/deny"))
                code = 0 if (reply.status, reply.body) == (403, b"go away") else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert side.ask(get("/guarded/allow")).status == 200
