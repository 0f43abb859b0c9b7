"""Whether a JSON Web Key Set in a document holds public keys that tokens can be verified with, and nothing secret."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from meshlib.resources.documents import show

__all__ = ["jwks_fault"]

_BYTES_AT_MOST = 256 * 1024
_KEYS_AT_MOST = 100
_RSA_BITS = (2048, 8192)
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_UNKNOWN = "is of no kind that is supported: RSA, EC with P-256, P-384 or P-521, OKP with Ed25519"
_CURVES = {"P-256": 32, "P-384": 48, "P-521": 66, "Ed25519": 32}
_ALGORITHMS = {
    "RSA": {f"{family}{bits}" for family in ("RS", "PS") for bits in (256, 384, 512)},
    "P-256": {"ES256"},
    "P-384": {"ES384"},
    "P-521": {"ES512"},
    "Ed25519": {"EdDSA", "Ed25519"},
}


def jwks_fault(text: str) -> str | None:
    """What is wrong with a key set, None when nothing is. No key is ever shown.

    RFC 7517 and 7518; keys of under 2048 bits are refused as RFC 7518, 3.3 says, and those of over 8192 because a check
    would take milliseconds.
    """
    if len(text) > _BYTES_AT_MOST:
        return f"has {len(text)} characters; at most {_BYTES_AT_MOST} are allowed"
    try:
        keys = json.loads(text, object_pairs_hook=_once)["keys"]
    except (RecursionError, KeyError, TypeError, ValueError):
        return 'is not a JSON Web Key Set, {"keys": […]}'
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
        return 'has no key; a JSON Web Key Set, {"keys": [{…}]}, expected'
    if len(keys) > _KEYS_AT_MOST:
        return f"has {len(keys)} keys; at most {_KEYS_AT_MOST} are allowed"
    faults = [(number, _key_fault(key)) for number, key in enumerate(keys, 1)]
    found = next(((number, fault) for number, fault in faults if fault is not None), None)
    if found is not None:
        return f"key {found[0]} of {len(keys)} {found[1]}"
    ids = [key["kid"] for key in keys if "kid" in key]
    if len(set(ids)) < len(ids):
        return "has two keys of one kid, so that nobody knows which is meant; rename or remove one"
    return None


def _key_fault(key: Mapping[str, Any]) -> str | None:
    kind = key.get("kty")
    if kind == "oct" or "k" in key:
        return "is symmetric: whoever can verify with it can sign, too; use an asymmetric one"
    if any(name in key for name in _PRIVATE):
        return "has private parts, which belong to the issuer alone; take it as leaked, and write a public one"
    for name in ("kid", "alg", "use"):
        if name in key and not isinstance(key[name], str):
            return f"has a {name} that is no text"
    if key.get("use", "sig") != "sig":
        return f'is for use {show(key["use"])}; only keys for "sig" verify tokens'
    if "verify" not in (operations if isinstance(operations := key.get("key_ops", ["verify"]), list) else ()):
        return 'has key_ops without "verify"'
    known = _ALGORITHMS.get("RSA" if kind == "RSA" else str(key.get("crv")))
    if known is not None and key.get("alg", min(known)) not in known:
        return f"is for {show(key['alg'])}, with which no key of its kind verifies tokens"
    if kind == "RSA":
        return _rsa_fault(key)
    return _curve_fault(key) if kind in ("EC", "OKP") else _UNKNOWN


def _rsa_fault(key: Mapping[str, Any]) -> str | None:
    modulus, exponent = _number(key.get("n")), _number(key.get("e"))
    if modulus is None or exponent is None or exponent < 3:
        return "lacks n or e in base64url"
    bits, (least, most) = modulus.bit_length(), _RSA_BITS
    return None if least <= bits <= most else f"has {bits} bits; from {least} to {most} are taken"


def _curve_fault(key: Mapping[str, Any]) -> str | None:
    kind, curve = key["kty"], key.get("crv")
    if not isinstance(curve, str) or curve not in _CURVES or curve.startswith("P-") != (kind == "EC"):
        return _UNKNOWN
    points = ("x", "y") if kind == "EC" else ("x",)
    if any(len(_bytes(key.get(name))) != _CURVES[curve] for name in points):
        return f"lacks {' or '.join(points)} of {_CURVES[curve]} bytes in base64url"
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice, and readers differ in which they take")
    return found


def _number(text: object) -> int | None:
    found = _bytes(text)
    return int.from_bytes(found, "big") if found else None


def _bytes(text: object) -> bytes:
    """Of base64url without padding, empty where it isn't that."""
    if not isinstance(text, str) or not text.isascii() or set(text) & set("+/="):
        return b""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return b""
