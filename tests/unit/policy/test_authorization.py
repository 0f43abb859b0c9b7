"""AuthorizationPolicy by tables of (policies, request, verdict): judged purely, and by both middlewares."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import pytest

from meshlib.inbound import admit
from meshlib.inbound.effects import Ask, Said
from meshlib.plan.plan import Plan
from tests.support.authorization import Asked, Row, Table, arriving, asked, documents, rows, verdict
from tests.support.inbound import Kind, Reply, Request, Side, inbound_from
from tests.unit.policy.authorization_cases import conditions, operations, orders, paths, sources

TABLES = [*sources.TABLES, *operations.TABLES, *paths.TABLES, *conditions.TABLES, *orders.TABLES]
ROWS = rows(*TABLES)

JOINED = {
    # A WSGI server joins the values of a header, and the application sees them so.
    "a header that allows, several times: GET / x-role:ops x-role:user → deny": "allow",
    # gunicorn drops a name with an underscore; the application can't see it apart from the other.
    "a header whose name a CGI variable makes the same: GET /allow x-user:root x_user:ann → deny": None,
    "a header whose name a CGI variable makes the same: GET /allow x-user:ann x_user:root → deny": None,
    "a header whose name a CGI variable makes the same: GET /deny x-user:ann x_user:root → deny": None,
    "a header whose name a CGI variable makes the same: GET /allow x-user:root x_user:root → deny": None,
    "a header and its twin, each by itself and joined: GET / x-l:a x-l:b x_l:c → deny": None,
    "a header and its twin, each by itself and joined: GET / x-l:a x_l:b → deny": None,
}
"""What becomes of a request before the WSGI middleware where it differs; None: no server lets it come so."""


@cache
def compiled(text: str) -> Any:
    return inbound_from(text)


def inbound(table: Table) -> Any:
    return compiled(documents(table))


def test_there_are_several_hundred_rows_and_each_says_something_of_its_own() -> None:
    assert len(ROWS) > 600
    assert all(row.table.source for row in ROWS)
    assert [name for name, times in Counter(map(str, ROWS)).items() if times > 1] == []


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_request_is_judged(row: Row) -> None:
    assert verdict(inbound(row.table).authorization, arriving(asked(row.request))) == row.verdict


@pytest.fixture(scope="module")
def sides() -> dict[Kind, Side]:
    """One of each kind, for all rows; to build one costs more than to ask it."""
    return {"asgi": Side("asgi"), "wsgi": Side("wsgi")}


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.shows)
def test_both_middlewares_do_as_is_judged(
    table: Table, kind: Kind, sides: dict[Kind, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    side, found, expected = sides[kind], {}, {}
    side.gate.performers[Ask] = lambda ask: Said(418, body=ask.provider.name.encode())

    async def teapot(ask: Ask) -> Said:
        return Said(418, body=ask.provider.name.encode())

    side.gate.async_performers[Ask] = teapot
    for row in rows(table):
        request = asked(row.request)
        wanted = JOINED.get(str(row), row.verdict) if kind == "wsgi" else row.verdict
        if unsayable(request) or wanted is None:
            continue
        with monkeypatch.context() as patch:
            tokens = tokens_that_say(request.claims, patch) if request.claims is not None else None
            side.mesh.plan = Plan("1", {}, (), {}, inbound=inbound(table)._replace(tokens=tokens))
            reply = side.ask(as_sent(request))
        expected[row.request] = wanted
        found[row.request] = said(reply)
        assert (reply.seen is not None) == (wanted == "allow"), row
    assert found == expected


def unsayable(request: Asked) -> bool:
    """Whether the harness of the middlewares has no way to say it: it always has a port and a Host header."""
    return (
        bool({"sni", "to", "remote"} & set(request.options))
        or request.options.get("port") == "none"
        or "host" not in dict(request.headers)
    )


def test_most_rows_come_before_the_middlewares() -> None:
    assert sum(not unsayable(asked(row.request)) for row in ROWS) > 0.9 * len(ROWS)
    assert JOINED.keys() <= set(map(str, ROWS))


def tokens_that_say(claims: dict[str, Any], patch: pytest.MonkeyPatch) -> Any:
    """Have the step of tokens find these claims; what verifies a token is shown elsewhere."""

    def verified(rules: Any, head: Any, *_: Any) -> Any:
        head.claims = claims
        return None
        yield

    patch.setattr(admit, "authenticate", verified)
    return object()


def as_sent(request: Asked) -> Request:
    """The request as it comes to the middlewares."""
    options = request.options
    return Request(
        request.method,
        request.target,
        request.headers,
        peer=request.peer,
        address=options.get("ip", "192.0.2.7"),
        port=int(options.get("port", "8080")),
    )


def said(reply: Reply) -> str:
    """What became of a request, in a table's words."""
    if reply.status == 418:
        return f"ask {reply.body.decode()}"
    return {(200, ""): "allow", (403, "RBAC"): "deny", (400, "PATH"): "unsafe"}[reply.status, reply.code]
