"""The public keys of an issuer of tokens, and whether one of them signed a token."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from meshlib.policy.webtoken import BadToken, WebToken, json_object

__all__ = ["MAX_KEYS", "MAX_KEY_SET", "Key", "Keyring", "KeysUnreadable", "read_keys", "signed_by"]

MAX_KEY_SET = 1024 * 1024
"""Bytes of a JSON Web Key Set."""

MAX_KEYS = 100

MOST_TRIED = 10
"""Keys tried for one token that doesn't say which of them it means: each costs some 50 µs."""

RSA_BITS = range(2048, 8192 + 1)
"""RFC 7518 wants 2048 bits; beyond 8192 a check takes milliseconds."""

_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_RSA = frozenset(f"{family}{bits}" for family in ("RS", "PS") for bits in (256, 384, 512))
_EDWARDS = frozenset(["EdDSA", "Ed25519"])
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


class KeysUnreadable(ValueError):
    """Why a key set is of no use."""


class Key(NamedTuple):
    """One key.

    Attributes:
        kid: its name, None: it has none.
        algorithms: of tokens it may have signed: of its kind, and the one it says it is for.
        checks: what joserfc checks signatures with.
    """

    kid: str | None
    algorithms: frozenset[str]
    checks: Any


class Keyring:
    """The usable keys of a set; immutable.

    Args:
        keys: that can check signatures.
        digest: of the set's text; equal ones have equal keys.
        passed_over: how many others are in the set: of other kinds, for other uses, too weak.
    """

    __slots__ = ("_keys", "digest", "passed_over")

    def __init__(self, keys: Iterable[Key], digest: bytes, passed_over: int = 0) -> None:
        self._keys = tuple(keys)
        self.digest = digest
        self.passed_over = passed_over

    def __len__(self) -> int:
        return len(self._keys)

    def fitting(self, token: WebToken) -> list[Key]:
        """The keys that may have signed a token: a key without a name is anybody's, as in Envoy.

        A key is never used with an algorithm of another kind, whatever the token says.
        """
        return [
            key
            for key in self._keys
            if token.algorithm in key.algorithms and (token.kid is None or key.kid is None or key.kid == token.kid)
        ][:MOST_TRIED]


def signed_by(token: WebToken, keys: Iterable[Key]) -> bool:
    """Whether one of the keys signed the token. Costs 50 to 200 µs a key."""
    from joserfc.jws import JWSRegistry

    # EdDSA is the older name of Ed25519 and Ed448 (RFC 9864); keys of the latter aren't taken.
    name = "Ed25519" if token.algorithm == "EdDSA" else token.algorithm
    method = JWSRegistry(algorithms=[name]).get_alg(name)
    return any(method.verify(token.signed, token.signature, key.checks) for key in keys)


def read_keys(text: bytes) -> Keyring:
    """The keys of a JSON Web Key Set.

    Args:
        text: of the set.

    Raises:
        KeysUnreadable: there is no key in it that can check signatures.
    """
    if len(text) > MAX_KEY_SET:
        raise KeysUnreadable(f"it has {len(text)} bytes; {MAX_KEY_SET} are read at most")
    try:
        written = json_object(text, "key set").get("keys")
    except BadToken as error:
        raise KeysUnreadable(str(error)) from None
    if not isinstance(written, list):
        raise KeysUnreadable('it is no JSON Web Key Set: it has no list "keys"')
    if len(written) > MAX_KEYS:
        raise KeysUnreadable(f"it has {len(written)} keys; {MAX_KEYS} are taken at most")
    keys = [key for one in written if isinstance(one, dict) and (key := _key(one)) is not None]
    if not keys:
        raise KeysUnreadable(f"none of its {len(written)} keys can check a signature of a known algorithm")
    return Keyring(keys, sha256(text).digest(), len(written) - len(keys))


def _key(written: Mapping[str, Any]) -> Key | None:
    """A key that checks signatures, None for any other. The private part, where somebody published it, isn't kept."""
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    kid, operations = written.get("kid"), written.get("key_ops", ["verify"])
    if not isinstance(kid, str | None) or written.get("use", "sig") != "sig":
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    algorithms, members = _kind(written)
    if "alg" in written:
        algorithms &= {written["alg"]} if isinstance(written["alg"], str) else frozenset()
    if not algorithms:
        return None
    values = [(name, written.get(name)) for name in ("kty", *members)]
    public: dict[str, str | list[str]] = {name: value for name, value in values if isinstance(value, str)}
    if not all(_BASE64URL.fullmatch(str(public.get(name, ""))) for name in members):
        return None
    try:
        return Key(kid, algorithms, import_key(public))
    except (JoseError, ValueError, TypeError):
        return None


def _kind(written: Mapping[str, Any]) -> tuple[frozenset[str], tuple[str, ...]]:
    """The algorithms of a key's kind, none: it is no usable kind; and the members it consists of."""
    kind, curve = written.get("kty"), written.get("crv")
    if kind == "RSA" and _bits(written.get("n")) in RSA_BITS:
        return _RSA, ("n", "e")
    if kind == "EC" and isinstance(curve, str) and curve in _CURVES:
        return frozenset([_CURVES[curve]]), ("crv", "x", "y")
    if kind == "OKP" and curve == "Ed25519":
        return _EDWARDS, ("crv", "x")
    return frozenset(), ()


def _bits(number: object) -> int:
    """The length of a number in base64url."""
    if not isinstance(number, str) or len(number) > MAX_KEY_SET:
        return 0
    try:
        return int.from_bytes(base64.urlsafe_b64decode(number + "=" * (-len(number) % 4))).bit_length()
    except (binascii.Error, ValueError):
        return 0
