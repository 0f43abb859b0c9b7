"""Compiling a VirtualService's `match` into predicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from meshlib.policy.match import HeadView, Match, Predicate, Test, string_test
from meshlib.resources import HTTPMatchRequest, StringMatch

__all__ = ["compile_match"]


def compile_match(match: HTTPMatchRequest) -> Match:
    """All conditions of one entry; they must hold together."""
    return Match(tuple(_predicates(match)))


def _predicates(match: HTTPMatchRequest) -> Iterator[Predicate]:
    if match.method is not None:
        yield _on("method", match.method, lambda head: (head.method.upper(),))
    if match.uri is not None:
        yield _on("uri", match.uri, lambda head: head.paths)
    if match.authority is not None:
        yield _on("authority", match.authority, lambda head: head.authorities)
    for name, condition in match.headers.items():
        yield _header(name, condition)
    for name, condition in match.query_params.items():
        yield _query(name, condition)
    for name, condition in match.without_headers.items():
        yield _without_header(name, condition)


def _compiled(condition: StringMatch) -> tuple[str, Test]:
    return string_test(condition.exact, condition.prefix, condition.regex)


def _on(what: str, condition: StringMatch, read: Callable[[HeadView], Sequence[str]]) -> Predicate:
    says, test = _compiled(condition)
    return Predicate(f"{what} {says}", lambda head: any(map(test, read(head))))


def _header(name: str, condition: StringMatch) -> Predicate:
    says, test = _compiled(condition)
    raw_name = name.lower().encode()

    def holds(head: HeadView) -> bool:
        value = head.header(raw_name)
        return value is not None and test(value)

    return Predicate(f"header {name} {says}", holds)


def _without_header(name: str, condition: StringMatch) -> Predicate:
    there = _header(name, condition)
    return Predicate(f"no {there.says}", lambda head: not there.holds(head))


def _query(name: str, condition: StringMatch) -> Predicate:
    says, test = _compiled(condition)
    return Predicate(f"query parameter {name} {says}", lambda head: any(map(test, head.fields(name))))
