"""Key sets of issuers: which keys are taken, and which sets are of no use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from meshlib.policy.keyring import MAX_KEY_SET, MAX_KEYS, MOST_TRIED, KeysUnreadable, read_keys, signed_by
from meshlib.policy.webtoken import ALGORITHMS, WebToken, read_token
from meshlib.resources.keysets import jwks_fault
from tests.support.tokens import Issuer, claims, compact, key

GOOD = Issuer("ES256").key_set()["keys"][0]
RSA = Issuer("RS256").key_set()["keys"][0]


def key_set(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


def token(algorithm: str = "ES256", kid: str | None = "one") -> WebToken:
    header = {"alg": algorithm, **({} if kid is None else {"kid": kid})}
    return read_token(compact(header, claims(), key(algorithm, 0)))


@pytest.mark.parametrize(
    "text",
    [
        b"", b"null", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [1, null, "a"]}', b"<html>", b"\xff",
        b'{"keys": [], "keys": []}', b'{"keys": ' + b"[" * 5000, key_set(*[GOOD] * (MAX_KEYS + 1)),
        key_set({**GOOD, "x5t": "x" * MAX_KEY_SET}),
    ],
)  # fmt: skip
def test_a_set_of_no_use(text: bytes) -> None:
    with pytest.raises(KeysUnreadable):
        read_keys(text)


def without(name: str, of: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in of.items() if field != name}


OFF_THE_CURVE = {**GOOD, "y": GOOD["x"]}
OF_NO_USE = [
    OctKey.generate_key(256).as_dict(private=True),
    {**GOOD, "use": "enc"},
    {**GOOD, "use": 1},
    {**GOOD, "key_ops": ["sign"]},
    {**GOOD, "key_ops": "verify"},
    {**GOOD, "kid": 1},
    {**GOOD, "alg": "HS256"},
    {**GOOD, "alg": "RS256"},
    {**GOOD, "alg": "none"},
    {**GOOD, "alg": ["ES256"]},
    {**GOOD, "x": 1},
    {**GOOD, "x": "AAAA"},
    {**GOOD, "x": GOOD["x"] + "="},
    {**GOOD, "kty": "RSA"},
    {**GOOD, "kty": ["EC"]},
    {**GOOD, "crv": "P-384"},
    {**GOOD, "crv": ["P-256"]},
    without("y", GOOD),
    {**RSA, "n": RSA["n"][:100]},
    {**RSA, "n": "A" * 100_000},
    {**RSA, "n": "_" * 2000},
    {**RSA, "n": "ä"},
    {**RSA, "e": "AA"},
    without("e", RSA),
    ECKey.generate_key("secp256k1").as_dict(private=False),
    OKPKey.generate_key("X25519").as_dict(private=False),
    OKPKey.generate_key("Ed448").as_dict(private=False),
]


@pytest.mark.parametrize("other", [*OF_NO_USE, OFF_THE_CURVE])
def test_a_key_that_checks_nothing_is_passed_over(other: dict[str, Any]) -> None:
    ring = read_keys(key_set(other, GOOD))
    assert (len(ring), ring.passed_over) == (1, 1)
    assert signed_by(token(), ring.fitting(token()))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "Ed25519"])
def test_of_a_key_that_somebody_published_whole_the_secret_part_is_not_kept(algorithm: str) -> None:
    ring = read_keys(key_set(key(algorithm).as_dict(private=True)))
    assert len(ring) == 1
    assert not any(one.checks.is_private for one in ring._keys)


def test_a_weak_key_is_none() -> None:
    with pytest.warns(UserWarning, match="2048"):
        weak = RSAKey.generate_key(1024)
    with pytest.raises(KeysUnreadable, match="none of its 1 keys"):
        read_keys(key_set(weak.as_dict(private=False)))


@pytest.mark.parametrize(
    ("kid", "named", "fits"),
    [("one", "one", True), ("one", "two", False), ("one", None, True), (None, "one", True), (None, None, True),
     ("one", "", False), ("one", "One", False)],
)  # fmt: skip
def test_which_key_a_token_may_be_signed_by(kid: str | None, named: str | None, fits: bool) -> None:
    ring = read_keys(key_set({**without("kid", GOOD), **({} if kid is None else {"kid": kid})}))
    assert bool(ring.fitting(token(kid=named))) == fits


def test_no_key_is_used_with_an_algorithm_of_another_kind() -> None:
    ring = read_keys(key_set(GOOD, RSA, Issuer("ES384").key_set()["keys"][0], Issuer("Ed25519").key_set()["keys"][0]))
    kinds = {
        algorithm: [one.checks.key_type for one in ring.fitting(token(algorithm))]
        for algorithm in ("RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA")
    }
    assert kinds == {
        "RS256": ["RSA"], "PS512": ["RSA"], "ES256": ["EC"], "ES384": ["EC"], "ES512": [], "EdDSA": ["OKP"],
    }  # fmt: skip


def test_a_token_without_a_keys_name_does_not_cost_a_hundred_checks() -> None:
    ring = read_keys(key_set(*[{**GOOD, "kid": str(number)} for number in range(MAX_KEYS)]))
    assert len(ring.fitting(token(kid=None))) == MOST_TRIED


@pytest.mark.parametrize("other", OF_NO_USE)
def test_a_key_that_would_be_passed_over_is_refused_in_a_document(other: dict[str, Any]) -> None:
    assert jwks_fault(key_set(other).decode()) is not None


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_key_that_a_document_may_hold_checks_tokens(algorithm: str) -> None:
    text = json.dumps(Issuer(algorithm).key_set())
    assert jwks_fault(text) is None
    assert len(read_keys(text.encode()).fitting(token(algorithm, kid=None))) == 1
