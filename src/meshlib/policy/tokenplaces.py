"""Where a request carries tokens, and the request without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, unquote_plus

from meshlib.policy.arriving import Arriving

__all__ = ["BEARER", "TOKEN_PARAM", "TokenPlace", "TokenPlaces", "without_cookie", "without_field"]


class TokenPlace(NamedTuple):
    """One place to look for a token.

    Attributes:
        kind: of place.
        name: of the header (in lower case), the query's field or the cookie.
        prefix: that stands before the token, in lower case.
    """

    kind: Literal["header", "query", "cookie"]
    name: bytes
    prefix: bytes = b""


BEARER = TokenPlace("header", b"authorization", b"bearer ")
TOKEN_PARAM = TokenPlace("query", b"access_token")
"""Where tokens are when a rule says nothing; Istio's, by RFC 6750."""


class TokenPlaces:
    """Looks for tokens in all the places that any rule names; immutable.

    Every value that stands in such a place counts, not the first one only: which of two the application takes is not
    known here.
    """

    __slots__ = ("_cookies", "_headers", "_query")

    def __init__(self, places: Iterable[TokenPlace]) -> None:
        self._headers: dict[bytes, list[tuple[bytes, int, TokenPlace]]] = {}
        self._query: dict[str, TokenPlace] = {}
        self._cookies: dict[bytes, TokenPlace] = {}
        for place in sorted(set(places)):
            if place.kind == "header":
                self._headers.setdefault(place.name, []).append((place.prefix, len(place.prefix), place))
            elif place.kind == "query":
                self._query[place.name.decode()] = place
            else:
                self._cookies[place.name] = place

    def find(self, arriving: Arriving) -> list[tuple[bytes, TokenPlace]]:
        """The tokens of a request, and where each is."""
        found: list[tuple[bytes, TokenPlace]] = []
        headers, cookies = self._headers, self._cookies
        for name, value in arriving.raw_headers:
            if name in headers:
                for prefix, length, place in headers[name]:
                    # A scheme is the same in any case to many an application (RFC 9110, 11.1).
                    if value[:length].lower() == prefix:
                        found.append((value[length:].strip() if prefix else _bare(value), place))
            if cookies and name == b"cookie":
                found += self._in_cookies(value)
        if self._query and b"?" in arriving.raw_target:
            found += self._in_query(arriving.raw_target)
        return found

    def _in_query(self, target: bytes) -> Iterator[tuple[bytes, TokenPlace]]:
        query = target.partition(b"?")[2].decode("latin-1")
        if "%" not in query and not any(name in query for name in self._query):
            return
        for name, value in parse_qsl(query, keep_blank_values=True):
            if (place := self._query.get(name)) is not None:
                yield value.encode(errors="replace"), place

    def _in_cookies(self, header: bytes) -> Iterator[tuple[bytes, TokenPlace]]:
        for part in header.split(b";"):
            name, _, value = part.partition(b"=")
            if (place := self._cookies.get(name.strip())) is not None:
                value = value.strip()
                quoted = len(value) > 1 and value[:1] == value[-1:] == b'"'
                yield value[1:-1] if quoted else value, place


def _bare(value: bytes) -> bytes:
    """The token in a header that has no prefix by its rule; a scheme isn't part of it in any case."""
    prefix = BEARER.prefix
    return (value[len(prefix) :] if value[: len(prefix)].lower() == prefix else value).strip()


def without_field(target: bytes, name: bytes) -> bytes:
    """Path and query without one of the query's fields; the others stay as they were written."""
    gone = name.decode()
    path, mark, query = target.partition(b"?")
    kept = [field for field in query.split(b"&") if unquote_plus(field.partition(b"=")[0].decode("latin-1")) != gone]
    return path + mark + b"&".join(kept) if any(kept) else path


def without_cookie(header: bytes, name: bytes) -> bytes:
    """A `cookie` header without one of the cookies."""
    parts = [part.strip() for part in header.split(b";")]
    return b"; ".join(part for part in parts if part and part.partition(b"=")[0].strip() != name)
