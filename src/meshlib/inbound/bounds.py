"""What is too much of a request."""

from __future__ import annotations

from meshlib.inbound.denials import TOO_LARGE, Denial, deny
from meshlib.policy.arriving import Arriving
from meshlib.resources import RequestBounds

__all__ = ["body_bound", "fault_of", "too_long"]

AROUND = 4
"""Bytes of a header line beside name and value: `: ` and the end of the line."""

_DIGITS = 18
"""A length with more of them is beyond any bound."""


def fault_of(bounds: RequestBounds, arriving: Arriving) -> Denial | None:
    """Why a request is turned away for its size, None: it isn't."""
    headers = arriving.raw_headers
    most = bounds.max_headers
    if most is not None and len(headers) > most:
        return _head(f"has {len(headers)} headers; maxHeaders is {most}")
    most = bounds.max_header_bytes
    if most is not None:
        size = sum([len(name) + len(value) for name, value in headers]) + AROUND * len(headers)
        if size > most:
            return _head(f"has {size} bytes of headers; maxHeaderBytes is {most}")
    most = bounds.max_body_bytes
    if most is not None:
        for value in arriving.values(b"content-length"):
            said = _length(value)
            if said is not None and said > most:
                return too_long(most)
    return None


def body_bound(bounds: RequestBounds | None, arriving: Arriving) -> int | None:
    """How many bytes of the body to count while it comes; None: its length is said, and the server holds it to that."""
    if bounds is None or bounds.max_body_bytes is None:
        return None
    said = arriving.values(b"content-length")
    if len(said) == 1 and _length(said[0]) is not None and not arriving.values(b"transfer-encoding"):
        return None
    return bounds.max_body_bytes


def too_long(most: int) -> Denial:
    """The answer to a body of more than `most` bytes."""
    return deny(
        413, TOO_LARGE, "the body is longer than this service takes", f"its body is beyond maxBodyBytes ({most})"
    )


def _head(why: str) -> Denial:
    return deny(431, TOO_LARGE, "the headers are more than this service takes", f"it {why}")


def _length(value: bytes) -> int | None:
    text = value.strip()
    if not text.isdigit():
        return None
    return int(text) if len(text) <= _DIGITS else 10**_DIGITS
