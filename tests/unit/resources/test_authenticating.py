"""RequestAuthentication: keys that prove something, places for tokens, headers for the application."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest

from meshlib.resources import Problem, Source, load


def base64url(number: int, length: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(length, "big")).rstrip(b"=").decode()


RSA = {"kty": "RSA", "kid": "a", "alg": "RS256", "use": "sig", "n": base64url(1 << 2047 | 1, 256), "e": "AQAB"}
EC = {"kty": "EC", "crv": "P-256", "x": base64url(7, 32), "y": base64url(8, 32)}
ED = {"kty": "OKP", "crv": "Ed25519", "x": base64url(9, 32)}


def keys(*them: Any) -> str:
    return json.dumps({"keys": list(them)})


def problems(rule: dict[str, Any], *, spec: dict[str, Any] | None = None) -> Sequence[Problem]:
    document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "it"},
        "spec": {"jwtRules": [rule], **(spec or {})},
    }
    found = load([Source("mesh.yaml", json.dumps(document).encode())])
    assert found.notes == ()
    return found.problems


@pytest.mark.parametrize(
    "rule",
    [
        {"issuer": "https://issuer.example"},
        {"issuer": "testing@secure.istio.io", "jwksUri": "https://issuer.example:8443/keys?a=b"},
        {"issuer": "a", "jwksUri": "http://127.0.0.1:8000/jwks.json", "timeout": "10s"},
        {"issuer": "a", "jwks": keys(RSA, EC, ED)},
        {"issuer": "a", "jwks": keys(EC), "audiences": ["x"], "fromHeaders": [{"name": "x-jwt", "prefix": "Bearer "}]},
        {"issuer": "a", "jwks": keys(EC), "fromParams": ["t"], "fromCookies": ["__Host-t"]},
        {"issuer": "a", "jwks": keys(EC), "forwardOriginalToken": True},
        {"issuer": "a", "jwks": keys(EC), "outputPayloadToHeader": "x-p", "spaceDelimitedClaims": ["groups"],
         "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}, {"header": "x-team", "claim": "a.b"}]},
    ],
)  # fmt: skip
def test_a_sound_rule_is_taken(rule: dict[str, Any]) -> None:
    assert problems(rule) == ()


@pytest.mark.parametrize(
    ("rule", "path", "words"),
    [
        ({"jwksUri": "https://a/"}, ".issuer", "is required and missing"),
        ({"issuer": "", "jwksUri": "https://a/"}, ".issuer", "what the claim iss must be"),
        ({"issuer": "me@example.com"}, "", "write jwksUri or jwks"),
        ({"issuer": "a", "jwksUri": "https://a/", "jwks": keys(EC)}, "", "keep one of them"),
        ({"issuer": "a", "jwksUri": "file:///keys"}, ".jwksUri", "is not a URL with http"),
        ({"issuer": "a", "jwksUri": "https:///keys"}, ".jwksUri", "and a host"),
        ({"issuer": "a", "jwksUri": 'hTPp\\\\"blah'}, ".jwksUri", "is not a URL"),
        ({"issuer": "a", "jwksUri": "https://a/ b"}, ".jwksUri", "is not a URL"),
        ({"issuer": "a", "jwksUri": "https://a:99999/"}, ".jwksUri", "is not a URL"),
        ({"issuer": "a", "jwksUri": "https://[a/"}, ".jwksUri", "is not a URL"),
        ({"issuer": "a", "jwksUri": "https://user:secret@a/"}, ".jwksUri", "has a user or a fragment"),
        ({"issuer": "a", "jwksUri": "https://a/", "audiences": [""]}, ".audiences[0]", "expected a text"),
        ({"issuer": "a", "jwksUri": "https://a/", "fromHeaders": [{"prefix": "b"}]}, ".fromHeaders[0].name", "missing"),
        ({"issuer": "a", "jwksUri": "https://a/", "fromHeaders": [{"name": ""}]}, ".fromHeaders[0].name", "header"),
        ({"issuer": "a", "jwksUri": "https://a/", "fromHeaders": [{"name": "a", "prefix": "b\n"}]},
         ".fromHeaders[0].prefix", "line break"),
        ({"issuer": "a", "jwksUri": "https://a/", "fromParams": [""]}, ".fromParams[0]", "expected a text"),
        ({"issuer": "a", "jwksUri": "https://a/", "fromCookies": ["a;b"]}, ".fromCookies[0]", "not a header name"),
        ({"issuer": "a", "jwksUri": "https://a/", "spaceDelimitedClaims": [""]}, ".spaceDelimitedClaims[0]", "a text"),
        ({"issuer": "a", "jwksUri": "https://a/", "outputPayloadToHeader": ":p"}, ".outputPayloadToHeader", "not a"),
        ({"issuer": "a", "jwksUri": "https://a/", "outputPayloadToHeader": "Host"}, ".outputPayloadToHeader", "ends"),
        ({"issuer": "a", "jwksUri": "https://a/", "outputClaimToHeaders": [{"header": "x", "claim": ""}]},
         ".outputClaimToHeaders[0].claim", "expected a text"),
        ({"issuer": "a", "jwksUri": "https://a/", "outputClaimToHeaders": [{"header": "", "claim": "x"}]},
         ".outputClaimToHeaders[0].header", "not a header name"),
        ({"issuer": "a", "jwksUri": "https://a/", "outputPayloadToHeader": "X-A",
          "outputClaimToHeaders": [{"header": "x-a", "claim": "sub"}]}, ".outputClaimToHeaders[0].header", "set twice"),
        ({"issuer": "a", "jwksUri": "https://a/", "timeout": "apple"}, ".timeout", "is not a duration"),
        ({"issuer": "a", "jwksUri": "https://a/", "presence": "REQUIRED"}, ".presence", "changes who may come in"),
        ({"issuer": "a", "jwksUri": "https://a/", "fromParams": ["a"] * 101}, ".fromParams", "at most 100"),
    ],
)  # fmt: skip
def test_what_cant_be_meant_is_a_problem_at_its_path(rule: dict[str, Any], path: str, words: str) -> None:
    [problem] = problems(rule)
    assert problem.path == f"spec.jwtRules[0]{path}"
    assert words in problem.message


PRIVATE = EC | {"d": "c2VjcmV0LXNlY3JldA"}


@pytest.mark.parametrize(
    ("jwks", "words"),
    [
        ("not json", "is not a JSON Web Key Set"),
        ("[" * 100_000, "is not a JSON Web Key Set"),
        ("{}", "is not a JSON Web Key Set"),
        ("[]", "is not a JSON Web Key Set"),
        ('{"keys": {}}', "has no key"),
        ('{"keys": []}', "has no key"),
        ('{"keys": [1]}', "has no key"),
        (keys(*[EC] * 101), "at most 100"),
        (keys(EC | {"x-note": "a" * 300_000}), "characters; at most"),
        (keys(RSA, {"kty": "oct", "k": "c2VjcmV0LXNlY3JldA"}), "key 2 of 2 is symmetric"),
        (keys(RSA | {"k": "c2VjcmV0LXNlY3JldA"}), "is symmetric"),
        (keys(PRIVATE), "has private parts"),
        (keys(RSA | {"p": "AQAB"}), "has private parts"),
        (keys(RSA | {"n": base64url(1 << 1023 | 1, 128)}), "has 1024 bits; from 2048"),
        (keys(RSA | {"n": base64url(1 << 8200, 1026)}), "has 8201 bits; from 2048 to 8192"),
        (keys(RSA | {"alg": "HS256"}), 'is for "HS256"'),
        (keys(EC | {"alg": "ES384"}), 'is for "ES384"'),
        (keys(ED | {"alg": "none"}), 'is for "none"'),
        (keys(EC | {"key_ops": ["sign"]}), 'key_ops without "verify"'),
        (keys(EC | {"key_ops": "verify"}), 'key_ops without "verify"'),
        ('{"keys": [], "keys": []}', "is not a JSON Web Key Set"),
        (keys(ED | {"crv": "Ed448", "x": base64url(9, 57)}), "is of no kind that is supported"),
        (keys(RSA | {"n": "+/=="}), "lacks n or e"),
        (keys(RSA | {"e": "AQ"}), "lacks n or e"),
        (keys(RSA | {"e": None}), "lacks n or e"),
        (keys(EC | {"y": base64url(8, 31)}), "lacks x or y of 32 bytes"),
        (keys(EC | {"crv": "secp256k1"}), "is of no kind that is supported"),
        (keys(EC | {"crv": "Ed25519"}), "is of no kind that is supported"),
        (keys(ED | {"crv": "X25519"}), "is of no kind that is supported"),
        (keys(ED | {"x": "AQAB"}), "lacks x of 32 bytes"),
        (keys({"kty": ["RSA"]}), "is of no kind that is supported"),
        (keys(RSA | {"use": "enc"}), 'only keys for "sig"'),
        (keys(RSA | {"kid": 7}), "has a kid that is no text"),
        (keys(RSA, EC | {"kid": "a"}), "two keys of one kid"),
    ],
)
def test_only_public_keys_that_prove_something_are_taken_and_none_is_shown(jwks: str, words: str) -> None:
    [problem] = problems({"issuer": "a", "jwks": jwks})
    assert problem.path == "spec.jwtRules[0].jwks"
    assert words in problem.message
    assert "c2VjcmV0" not in problem.message


def test_a_document_for_a_gateway_says_so_and_nothing_else() -> None:
    rule = {"issuer": "https://a"}
    assert problems(rule, spec={"targetRef": {"kind": "Gateway", "name": "front"}}) == ()
    [problem] = problems(rule, spec={"targetRef": {"kind": "Service", "name": "a"}})
    assert problem.path == "spec.targetRef.kind"
    [problem] = problems({"issuer": "https://a"}, spec={"jwtRules": [rule] * 101})
    assert "at most 100" in problem.message
