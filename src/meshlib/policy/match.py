"""Predicates of a route over a request's head, compiled once from a VirtualService's `match`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl

__all__ = ["HeadView", "Match", "Predicate", "Test", "string_test"]

Test = Callable[[str], bool]


class Headers(Protocol):
    """Case-insensitive; several values of one name joined by a comma."""

    def get(self, name: str) -> str | None:
        """The value of a header, or None."""


class HeadView:
    """The head of a request as routing sees it; what few routes need is worked out when they ask.

    Args:
        method: upper case.
        target: path and query, as it goes on the wire.
        authority: the `Host` header.
        headers: the rest.
    """

    __slots__ = ("_query", "authority", "headers", "method", "target")

    def __init__(self, method: str, target: str, authority: str, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.authority = authority
        self.headers = headers
        self._query: Mapping[str, str] | None = None

    @property
    def path(self) -> str:
        """The path without the query."""
        return self.target.partition("?")[0]

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
        return all(predicate.holds(head) for predicate in self.predicates)


def string_test(exact: str | None, prefix: str | None, regex: str | None) -> tuple[str, Test]:
    """Istio's StringMatch as (what it says, test). A regex must match the whole string; no condition means present."""
    if exact is not None:
        return f"exact {exact!r}", exact.__eq__
    if prefix is not None:
        return f"prefix {prefix!r}", lambda text: text.startswith(prefix)
    if regex is not None:
        pattern = re.compile(regex)
        return f"regex {regex!r}", lambda text: pattern.fullmatch(text) is not None
    return "present", lambda text: True
