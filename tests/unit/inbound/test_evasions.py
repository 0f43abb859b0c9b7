"""Nobody gets out of a limit, or past a policy, by writing the same thing in another way."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse

from meshlib import ASGIMiddleware, Mesh
from meshlib.plan.plan import Plan
from meshlib.resources import HeaderPermission, Intention, Intentions, Permission
from tests.support.inbound import Kind, Request, Side, inbound_from
from tests.support.parsing import asgi_servers

pytestmark = pytest.mark.parametrize("kind", ["asgi", "wsgi"])


def limited(match: str, by: str = "") -> str:
    return (
        "apiVersion: meshlib/v1\nkind: InboundPolicy\nmetadata: {name: limits}\n"
        f"spec:\n  rateLimits: [{{name: login, requests: 1, per: 1h, match: [{match}]{by}}}]\n"
    )


SPELLINGS = [
    "/login",
    "/%6cogin",
    "//login",
    "/./login",
    "/x/../login",
    "/\\login",
    "http://reviews/login",
    "/login/",
    "/login//",
    "/login%0a",
    "/x%2f..%2flogin",
    "/login?x",
]


@pytest.mark.parametrize("target", SPELLINGS)
def test_every_spelling_of_a_path_counts_against_its_limit(kind: Kind, target: str) -> None:
    side = Side(kind, limited("{uri: {exact: /login}}"))
    assert side.ask(Request(target="/login")).status == 200
    assert side.ask(Request(target=target)).code == "RL"


@pytest.mark.parametrize("target", ["/logins", "/log/in", "/x/login", "/login/../x"])
def test_another_path_does_not(kind: Kind, target: str) -> None:
    side = Side(kind, limited("{uri: {exact: /login}}"))
    assert side.ask(Request(target="/login")).status == 200
    assert side.ask(Request(target=target)).status == 200


@pytest.mark.parametrize(
    ("match", "request_"),
    [
        ("{authority: {exact: reviews}}", Request(headers=[("host", "REVIEWS")])),
        ("{authority: {exact: reviews}}", Request(headers=[("host", "reviews.:8080")])),
        ("{queryParams: {do: {exact: login}}}", Request(target="/?do=x&do=login")),
        ("{queryParams: {do: {exact: login}}}", Request(target="/?do=login&do=x")),
        ("{method: {exact: POST}}", Request(method="post")),
    ],
)
def test_nor_does_another_spelling_of_host_query_or_method_get_out(kind: Kind, match: str, request_: Request) -> None:
    side = Side(kind, limited(match))
    side.ask(request_)
    assert side.ask(request_).code == "RL"


def test_a_made_up_second_value_of_a_header_opens_no_new_bucket(kind: Kind) -> None:
    side = Side(kind, limited("{uri: {prefix: /}}", ", by: [{header: x-api-key}]"))
    codes = [side.ask(Request(headers=[("x-api-key", "K"), ("x-api-key", str(n))])).code for n in range(3)]
    # To WSGI the server has joined them, and the application gets no other text than we do.
    assert codes == (["", "RL", "RL"] if kind == "asgi" else ["", "", ""])


@pytest.mark.parametrize("name", ["x-role", "X-Role", "x_role"])
def test_no_spelling_of_a_header_gets_past_an_intention(kind: Kind, name: str) -> None:
    denying = Permission("deny", headers=(HeaderPermission("X-Role", exact="guest"),))
    side = Side(kind, intentions=Intentions((Intention("*", None, (denying, Permission("allow"))),)))
    assert side.ask(Request(headers=[(name, "guest")])).status == 403
    assert side.ask(Request(headers=[(name, "admin")])).status == 200


def answers(kind: Kind, where: str) -> tuple[bytes, bytes]:
    """Of an application that says it is mounted, to a guarded path below its mount, and to an open one."""
    mesh = Mesh("memory:")
    rule = "spec: {action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}\n"
    head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: guard}\n"
    mesh.plan = Plan("1", {}, (), {}, inbound=inbound_from(head + rule))
    app = FastAPI()
    app.root_path = "/api"  # as an argument it is deprecated, and works on

    @app.get("/{name}")
    def named(name: str) -> PlainTextResponse:
        return PlainTextResponse(f"here is {name}")

    served = app
    if where == "inside":
        app.add_middleware(ASGIMiddleware, mesh=mesh)
    else:
        behind = GZipMiddleware(GZipMiddleware(app)) if where == "far outside" else app
        served = ASGIMiddleware(behind, mesh)  # type: ignore[assignment]
    answer = asgi_servers(served)["uvicorn, h11" if kind == "asgi" else "uvicorn, httptools"]
    return tuple(  # type: ignore[return-value]
        answer(b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path) for path in (b"/api/admin", b"/api/x")
    )


@pytest.mark.parametrize("where", ["inside", "outside", "far outside"])
def test_what_an_application_takes_away_from_a_path_hides_no_guarded_one(kind: Kind, where: str) -> None:
    guarded, other = answers(kind, where)
    assert b"HTTP/1.1 403" in guarded
    assert b"here is x" in other
