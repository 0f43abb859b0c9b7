"""Predicates of a route over a request's head, compiled once from a VirtualService's `match`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

__all__ = ["HeadView", "Match", "Predicate", "Test", "string_test"]

MAX_MATCHED = 4096
"""Characters; a longer text matches no regex. What `check` lets through is at worst quadratic in the text's length."""

RawHeaders = list[tuple[bytes, bytes]]
Test = Callable[[str], bool]


class HeadView:
    """The head of a request as routing sees it; what few routes need is worked out when they ask.

    Args:
        method: upper case.
        raw_target: path and query, as they go on the wire.
        host: of the URL, for a request without a `Host` header.
        raw_headers: of the request, names in any case.
    """

    __slots__ = ("_query", "host", "method", "raw_headers", "raw_target")

    def __init__(self, method: str, raw_target: bytes, host: str, raw_headers: RawHeaders) -> None:
        self.method = method
        self.raw_target = raw_target
        self.host = host
        self.raw_headers = raw_headers
        self._query: Mapping[str, str] | None = None

    def header(self, name: bytes) -> str | None:
        """The value of a header, several joined by commas, or None; `name` is in lower case."""
        length = len(name)
        found: bytes | None = None
        for key, value in self.raw_headers:
            if len(key) == length and key.lower() == name:
                found = value if found is None else b"%b,%b" % (found, value)
        return None if found is None else found.decode("utf-8", "replace")

    @property
    def authority(self) -> str:
        """The `Host` header."""
        return self.header(b"host") or self.host

    @property
    def target(self) -> str:
        """Path and query."""
        return self.raw_target.decode("ascii", "replace")

    @property
    def path(self) -> str:
        """The path without the query."""
        return self.target.partition("?")[0]

    @property
    def paths(self) -> Sequence[str]:
        """What a `uri` is held against, any of them; a request that goes out has one path."""
        return (self.path,)

    @property
    def authorities(self) -> Sequence[str]:
        """What an `authority` is held against; see `paths`."""
        return (self.authority,)

    def fields(self, name: str) -> Sequence[str]:
        """What one of the query's fields is held against; see `paths`."""
        value = self.query.get(name)
        return () if value is None else (value,)

    @property
    def query(self) -> Mapping[str, str]:
        """The query's fields; of a repeated one the first."""
        if self._query is None:
            fields = parse_qsl(self.target.partition("?")[2], keep_blank_values=True)
            self._query = dict(reversed(fields))
        return self._query


class Predicate(NamedTuple):
    """One condition: what it says, and the test of it."""

    says: str
    holds: Callable[[HeadView], bool]


class Match(NamedTuple):
    """Conditions that must all hold."""

    predicates: tuple[Predicate, ...]

    def holds(self, head: HeadView) -> bool:
        """Whether every condition holds."""
        for _, holds in self.predicates:  # noqa: SIM110 - a generator would cost as much as the conditions
            if not holds(head):
                return False
        return True


def string_test(exact: str | None, prefix: str | None, regex: str | None) -> tuple[str, Test]:
    """Istio's StringMatch as (what it says, test). A regex must match the whole string; no condition means present."""
    if exact is not None:
        return f"exact {exact!r}", exact.__eq__
    if prefix is not None:
        return f"prefix {prefix!r}", lambda text: text.startswith(prefix)
    if regex is not None:
        pattern = re.compile(regex)
        return f"regex {regex!r}", lambda text: len(text) <= MAX_MATCHED and pattern.fullmatch(text) is not None
    return "present", lambda text: True
