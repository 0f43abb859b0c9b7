"""An issuer of tokens: its keys, its tokens, and tokens that somebody else made up."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping
from typing import Any

from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

__all__ = ["ISSUER", "NOW", "Issuer", "claims", "compact", "key"]

ISSUER = "https://issuer.example"

NOW = 1_750_000_000.0
"""The wall clock of tests that have none."""


def key(algorithm: str, number: int = 1) -> Key:
    """A private key for an algorithm; the same one for the same arguments, for making them takes time."""
    return _key("RSA" if algorithm[:2] in {"RS", "PS"} else algorithm, number)


@functools.cache
def _key(kind: str, _: int) -> Key:
    if kind == "RSA":
        return RSAKey.generate_key(2048)
    if kind.startswith("ES"):
        return ECKey.generate_key({"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[kind])
    return OKPKey.generate_key("Ed25519")


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(header: Mapping[str, Any] | bytes, payload: Mapping[str, Any] | bytes, signing: Key | None = None) -> bytes:
    """A token of just these parts, signed by the algorithm its header names; without a key its signature is made up."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signed = f"{b64(head)}.{b64(body)}".encode()
    if signing is None or isinstance(header, bytes):
        return signed + b"." + b64(b"x" * 64).encode()
    name = "Ed25519" if header["alg"] == "EdDSA" else header["alg"]
    return signed + b"." + b64(JWSRegistry.algorithms[name].sign(signed, signing)).encode()


def claims(**more: Any) -> dict[str, Any]:
    """The claims of a good token; None takes one away."""
    said = {"iss": ISSUER, "sub": "jason", "exp": NOW + 600, **more}
    return {name: value for name, value in said.items() if value is not None}


class Issuer:
    """Signs tokens by keys that may come and go.

    Args:
        algorithm: of its keys.
        kids: their names.
    """

    def __init__(self, algorithm: str = "ES256", *kids: str) -> None:
        self.algorithm = algorithm
        self._keys = {kid: key(algorithm, number) for number, kid in enumerate(kids or ("one",))}

    def key_set(self, *kids: str, **more: Any) -> dict[str, Any]:
        """The public keys of these names, or all."""
        chosen = kids or tuple(self._keys)
        return {"keys": [{**self._keys[kid].as_dict(private=False), "kid": kid, **more} for kid in chosen]}

    def token(self, kid: str = "one", **said: Any) -> bytes:
        """A token with these claims beside the usual ones."""
        return compact({"alg": self.algorithm, "kid": kid}, claims(**said), self._keys[kid])
