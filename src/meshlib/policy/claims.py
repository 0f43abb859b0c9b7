"""Claims of a verified token, as rules look at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from meshlib.policy.arriving import Arriving, Claims
from meshlib.policy.patterns import Test, any_text

__all__ = ["SPACED", "any_claim", "any_request_principal", "claim_of"]

SPACED = ("scope", "permission")
"""Claims that are lists written with spaces; Istio's."""


def claim_of(claims: Claims, name: str) -> Any:
    """A claim by its name, or by `a.b` for `b` within `a`; None where there is none."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def any_claim(path: Sequence[str], values: Sequence[str], forbidding: bool) -> Callable[[Arriving], bool]:
    """Whether a claim is one of `values`, or a list in which one of them is.

    Args:
        path: the claim, and what is within it.
        values: as of every text.
        forbidding: numbers and truth values count by their JSON, too. Otherwise, as in Istio, only texts do.
    """
    test = any_text(values)

    def holds(arriving: Arriving) -> bool:
        found: Any = arriving.claims
        for name in path:
            if not isinstance(found, Mapping):
                return False
            found = found.get(name)
        if isinstance(found, str):
            return test(found) or (path[-1] in SPACED and any(map(test, found.split())))
        every = found if isinstance(found, list | tuple) else (found,)
        return any(test(text) for one in every if (text := _text(one, forbidding)))

    return holds


def _text(value: object, forbidding: bool) -> str:
    if isinstance(value, str):
        return value
    if not forbidding or not isinstance(value, int | float):
        return ""
    return (
        str(value).lower() if isinstance(value, bool) else f"{value:.15g}" if isinstance(value, float) else str(value)
    )


def any_request_principal(values: Sequence[str], forbidding: bool) -> Callable[[Arriving], bool]:
    """Whether issuer and subject of the token are one of `values`, `<iss>/<sub>`.

    Each is compared by itself, split at the last slash as Istio does: so the issuer `https://a` with the subject `b/c`
    isn't taken for `https://a/b` with `c`. What forbids looks at the joined text, too.
    """
    tests = [_parts(value) for value in values if value]
    joined = any_text(values)

    def holds(arriving: Arriving) -> bool:
        claims = arriving.claims
        if claims is None:
            return False
        issuer, subject = _named(claims, "iss"), _named(claims, "sub")
        for issuer_test, subject_test in tests:
            if issuer_test(issuer) and subject_test(subject):
                return True
        return forbidding and joined(f"{issuer}/{subject}")

    return holds


def _named(claims: Claims, name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def _parts(value: str) -> tuple[Test, Test]:
    """The tests of issuer and subject; a star is one at the end of the whole value only."""
    issuer, slash, subject = value.rpartition("/")
    starts = value.startswith("*")
    ends = value.endswith("*") and not starts
    if not slash:
        issuer, subject = ("*", value) if starts else (value, "*" if ends else "")
    return (
        any_text((issuer,)) if starts or (ends and not slash) else issuer.__eq__,
        any_text((subject,)) if ends or (starts and not slash) else subject.__eq__,
    )
