"""How RequestAuthentications become rules."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from meshlib.plan.inbound import Inbound
from meshlib.policy.tokenplaces import BEARER, TOKEN_PARAM, TokenPlace
from meshlib.state.inbound import InboundState
from tests.support.inbound import Kind, Side, get, inbound_from
from tests.support.tokens import ISSUER, Issuer

JWKS = json.dumps(Issuer().key_set())


def authentication(rules: list[dict[str, Any]], *, name: str = "it", namespace: str = "default", **spec: Any) -> str:
    document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"jwtRules": rules, **spec},
    }
    return json.dumps(document)


def inbound(*documents: str, state: InboundState | None = None) -> Inbound:
    return inbound_from("\n---\n".join(documents), state=state)


def issuers(*documents: str) -> list[str]:
    found = inbound(*documents).tokens
    return [] if found is None else [rule.issuer for rule in found.rules]


def test_without_a_document_nothing_is_asked_of_tokens() -> None:
    assert inbound().tokens is None
    assert inbound(authentication([])).tokens is None


def test_all_documents_that_select_the_process_hold_together() -> None:
    one = authentication([{"issuer": "a", "jwks": JWKS}], name="one")
    two = authentication([{"issuer": "b", "jwks": JWKS}], name="two", selector={"matchLabels": {"app": "reviews"}})
    mesh = authentication([{"issuer": "c", "jwks": JWKS}], namespace="istio-system")
    other = authentication([{"issuer": "d", "jwks": JWKS}], name="no", selector={"matchLabels": {"app": "ratings"}})
    away = authentication([{"issuer": "e", "jwks": JWKS}], namespace="other")
    assert sorted(issuers(one, two, mesh, other, away)) == ["a", "b", "c"]


def test_where_tokens_are_looked_for() -> None:
    written = [
        {"issuer": "a", "jwks": JWKS},
        {"issuer": "b", "jwks": JWKS, "fromHeaders": [{"name": "X-Token", "prefix": "Jwt "}], "fromCookies": ["c"]},
        {"issuer": "c", "jwks": JWKS, "fromParams": ["p"]},
    ]
    found = inbound(authentication(written)).tokens
    assert found is not None
    assert [rule.places for rule in found.rules] == [
        {BEARER, TOKEN_PARAM},
        {TokenPlace("header", b"x-token", b"jwt "), TokenPlace("cookie", b"c")},
        {TokenPlace("query", b"p")},
    ]


def test_which_keys_have_to_be_fetched() -> None:
    state = InboundState()
    written = [
        {"issuer": "https://a", "jwks": JWKS},
        {"issuer": "https://b", "jwksUri": "https://b/keys", "timeout": "2s"},
        {"issuer": "https://b", "jwksUri": "https://b/keys", "timeout": "2s", "audiences": ["x"]},
        {"issuer": "https://c"},
    ]
    inbound(authentication(written), state=state)
    assert [keys.source for keys in state.tokens.wanted] == [
        ("https://b", "https://b/keys", 2.0),
        ("https://c", "", 5.0),
    ]
    inbound(state=state)
    assert state.tokens.wanted == ()


def test_what_is_wrong_with_keys_is_told() -> None:
    state = InboundState()
    inbound(authentication([{"issuer": "https://a", "jwks": JWKS}, {"issuer": "https://b"}]), state=state)
    assert state.tokens.trouble == ""
    state.tokens.wanted[0].error = "it answered 500"
    assert state.tokens.trouble == "https://b: it answered 500"


@pytest.fixture
def no_joserfc(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "joserfc" else find(name, *more)
    )


@pytest.mark.usefixtures("no_joserfc")
def test_without_joserfc_nobody_is_let_in(kind: Kind) -> None:
    side = Side(kind, authentication([{"issuer": ISSUER, "jwks": JWKS}]))
    reply = side.ask(get())
    assert (reply.status, reply.code) == (503, "NOCONFIG")
    assert side.mesh.plan is not None
    assert 'pip install "servicemesh[jwt]"' in side.mesh.plan.inbound.closed
    assert b"joserfc" not in reply.body
    assert side.state.tokens.trouble == side.mesh.plan.inbound.closed
    side.obey("")
    assert side.state.tokens.trouble == ""
    assert side.ask(get()).status == 200


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: Any) -> Kind:
    """Each of the middlewares."""
    found: Kind = request.param
    return found
