"""Reading a JSON Web Token without believing any of it.

Readers disagree on JSON that is unusual: a name given twice, numbers that aren't finite, halves of characters. A token
that can be read in two ways is refused here, before anybody reads it at all.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, NamedTuple, NoReturn

__all__ = ["ALGORITHMS", "MAX_TOKEN", "BadToken", "WebToken", "json_object", "read_token"]

MAX_TOKEN = 16 * 1024
"""Bytes. Servers take some 8 to 64 KiB of headers."""

MAX_DEPTH = 32
"""Objects and lists within each other."""

MAX_KID = 1024
"""Characters of a key's name."""

ALGORITHMS: frozenset[str] = frozenset(
    [*(f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)), "EdDSA", "Ed25519"]
)
"""All asymmetric: with a shared secret, whoever can check a token can make one. Envoy's list without HMAC."""

_REFUSED_HEADERS = ("crit", "b64", "enc", "zip")
_FORM = re.compile(rb"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}")


class BadToken(ValueError):
    """Why a token can't be accepted, for the log; it never shows the token."""


class WebToken(NamedTuple):
    """A token as it was sent; nothing in it is verified.

    Attributes:
        algorithm: that signed it, one of `ALGORITHMS`.
        kid: the name of the key that signed it, None: it names none.
        claims: what it says.
        payload: the claims as they came, in base64url.
        signed: the bytes that the signature is of.
        signature: of them.
    """

    algorithm: str
    kid: str | None
    claims: dict[str, Any]
    payload: bytes
    signed: bytes
    signature: bytes


def read_token(token: bytes) -> WebToken:
    """Take a token apart.

    Raises:
        BadToken: it is none, or none that anybody should try to verify.
    """
    if len(token) > MAX_TOKEN:
        raise BadToken(f"it has {len(token)} bytes; {MAX_TOKEN} are read at most")
    if _FORM.fullmatch(token) is None:
        raise BadToken("it isn't three parts in base64url with dots between them")
    head, payload, signature = token.split(b".")
    header = json_object(_decoded(head), "header")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise BadToken(f"its algorithm is {str(algorithm)[:20]!r}; known: {', '.join(sorted(ALGORITHMS))}")
    for name in _REFUSED_HEADERS:
        if name in header:
            raise BadToken(f"its header has {name!r}, which isn't understood here")
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID):
        raise BadToken("the name of its key is no short text")
    # Where else the header may say that keys are (jku, x5u, jwk, x5c) isn't looked at: the document says it.
    claims = json_object(_decoded(payload), "payload")
    return WebToken(algorithm, kid, claims, payload, head + b"." + payload, _decoded(signature))


def json_object(text: bytes, what: str) -> dict[str, Any]:
    """An object that every reader of JSON reads alike.

    Args:
        text: of it.
        what: it is, for the error.

    Raises:
        BadToken: it isn't.
    """
    try:
        found = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_no_number)
        _check(found)
    except RecursionError:
        raise BadToken(f"its {what} is nested too deeply") from None
    except ValueError as error:  # UnicodeError and JSONDecodeError are ValueErrors
        raise BadToken(f"its {what} is no clean JSON: {str(error)[:100]}") from None
    if not isinstance(found, dict):
        raise BadToken(f"its {what} is no JSON object")
    return found


def _decoded(part: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except binascii.Error:
        raise BadToken("a part of it is no base64url") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON's")


def _check(value: Any) -> None:
    """Raise ValueError for what is too deep, or can't be written out again."""
    level = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                deeper += one.keys()
                deeper += one.values()
            elif isinstance(one, list):
                deeper += one
            elif isinstance(one, str):
                one.encode()  # half a character raises
            elif isinstance(one, float) and one in (float("inf"), float("-inf")):
                raise ValueError("a number is beyond all bounds")
        if not deeper:
            return
        level = deeper
    raise ValueError("it is nested too deeply")
