"""Whatever a stranger sends as a token is judged, and breaks nothing."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
from hypothesis import strategies as st

from meshlib.policy.keyring import read_keys
from meshlib.policy.tokenplaces import BEARER
from meshlib.policy.tokens import Refused, TokenRule, TokenRules, Verified
from meshlib.policy.webtoken import BadToken, WebToken, read_token
from meshlib.state.tokens import IssuerKeys
from tests.support.tokens import ISSUER, NOW, Issuer, compact, key

SIGNER = Issuer("Ed25519")
RULES = TokenRules(
    [
        TokenRule(
            ISSUER,
            audiences=["shop"],
            places=[BEARER],
            keys=IssuerKeys(None, read_keys(json.dumps(SIGNER.key_set()).encode())),
            payload_header=b"x-payload",
            claim_headers=[(b"x-sub", "sub"), (b"x-other", "other"), (b"x-deep", "other.a")],
            lists=["scope", "other"],
        )
    ]
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**2000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
CLAIMS = st.fixed_dictionaries(
    {"iss": st.just(ISSUER), "aud": st.just("shop") | JSON},
    optional=dict.fromkeys(("sub", "exp", "nbf", "iat", "scope", "other"), JSON),
)


def read(token: bytes) -> WebToken | None:
    try:
        return read_token(token)
    except BadToken:
        return None


@hypothesis.given(st.binary(max_size=60) | st.from_regex(rb"[\w.-]{0,60}"))
@hypothesis.settings(max_examples=100)
def test_any_bytes_are_judged(token: bytes) -> None:
    assert read(token) is None
    assert isinstance(RULES.judge(token, [BEARER], NOW), Refused)


@hypothesis.given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "cty"]), JSON))
@hypothesis.settings(max_examples=50)
def test_any_header_is_judged(header: dict[str, Any]) -> None:
    token = compact(json.dumps({"alg": "EdDSA", **header}).encode(), {"iss": ISSUER, "aud": "shop"})
    assert isinstance(RULES.judge(token, [BEARER], NOW), Refused)


@hypothesis.given(CLAIMS)
@hypothesis.settings(max_examples=150)
def test_any_claims_of_an_honest_issuer_are_judged(said: dict[str, Any]) -> None:
    """And what is let in can be handed on: as headers, and as a principal."""
    found = RULES.judge(compact({"alg": "EdDSA", "kid": "one"}, said, key("Ed25519", 0)), [BEARER], NOW)
    assert isinstance(found, Verified | Refused)
    if isinstance(found, Verified):
        assert all(b"\r" not in value and b"\n" not in value and b"\0" not in value for _, value in found.add)
        assert bool(found.principal.encode()) == bool(said.get("sub"))
        assert isinstance(said.get("sub", ""), str)
