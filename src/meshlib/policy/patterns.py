"""Istio's way to write a text: exact, `prefix*`, `*suffix`, `*` for anything; in paths `{*}` and `{**}`, too."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import NamedTuple

from meshlib.policy.paths import decoded_pattern

__all__ = ["Patterns", "Test", "any_glob", "any_part", "any_path", "any_text", "patterns_of", "text_test"]

Test = Callable[[str], bool]

_OPERATOR = re.compile(r"\{\*\*?\}")


class Patterns(NamedTuple):
    """Values of one field, sorted by their form. Those that fit nothing, such as "", are left out.

    Attributes:
        exact: texts.
        prefixes: ditto, of `abc*`.
        suffixes: ditto, of `*abc`.
        anything: whether `*` is among them.
    """

    exact: frozenset[str]
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]
    anything: bool


def patterns_of(values: Sequence[str]) -> Patterns:
    """The values of one field by their form. A star elsewhere than at one end is a star."""
    exact: set[str] = set()
    prefixes: list[str] = []
    suffixes: list[str] = []
    for value in values:
        if value in {"", "*"}:
            continue
        if value.startswith("*"):
            suffixes.append(value[1:])
        elif value.endswith("*"):
            prefixes.append(value[:-1])
        else:
            exact.add(value)
    return Patterns(frozenset(exact), tuple(prefixes), tuple(suffixes), "*" in values)


def any_text(values: Sequence[str]) -> Test:
    """Whether a text is one of `values`; the empty text is none."""
    return text_test(patterns_of(values))


def text_test(patterns: Patterns) -> Test:
    """The test of values that are sorted by their form."""
    exact, prefixes, suffixes, anything = patterns
    if anything:
        return bool
    if not prefixes and not suffixes:
        return exact.__contains__
    if not exact and not suffixes:
        return methodcaller("startswith", prefixes)
    if not exact and not prefixes:
        return methodcaller("endswith", suffixes)
    return lambda text: text in exact or text.startswith(prefixes) or text.endswith(suffixes)


def any_part(values: Sequence[str]) -> Test:
    """Whether a text is one of `values`; of `*abc*` a part. A star elsewhere than at an end is a star."""
    parts = [value[1:-1] for value in values if _is_part(value)]
    plain = any_text([value for value in values if not _is_part(value)])
    if not parts:
        return plain
    return lambda text: plain(text) or any(part in text for part in parts)


def _is_part(value: str) -> bool:
    return len(value) > 2 and value[0] == value[-1] == "*"


def any_glob(values: Sequence[str]) -> Test:
    """Whether a text is one of `values`, in which a star stands for any text wherever it is; the empty text is none."""
    plain = any_text([value for value in values if "*" not in value[1:-1] and value.count("*") < 2])
    globs = [_glob(value) for value in values if "*" in value[1:-1] or value.count("*") > 1]
    if not globs:
        return plain
    return lambda text: plain(text) or any(glob(text) for glob in globs)


def _glob(value: str) -> Test:
    first, *middle, last = value.split("*")

    def holds(text: str) -> bool:
        at, end = len(first), len(text) - len(last)
        if not text or at > end or not text.startswith(first) or not text.endswith(last):
            return False
        for part in middle:  # the earliest place of each leaves the most room for the rest
            found = text.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True

    return holds


def any_path(values: Sequence[str]) -> Test | None:
    """Whether a reading of a path is one of `values`; None: one of them is a template that makes no sense."""
    plain = any_text([decoded_pattern(value) for value in values if not _is_template(value)])
    templates = [_template(value) for value in values if _is_template(value)]
    if not templates:
        return plain
    if None in templates:
        return None
    tests = [test for test in templates if test is not None]
    if len(tests) == len(values) == 1:
        return tests[0]
    return lambda path: plain(path) or any(test(path) for test in tests)


def _is_template(value: str) -> bool:
    """Whether a path is written as a template."""
    return _OPERATOR.search(value) is not None


def _template(template: str) -> Test | None:
    """The test of a path template; None for one that Istio doesn't take.

    `{*}` is one segment, `{**}` any number of characters, also none, and the last operator, so that a match costs a
    time linear in the path. Envoy's URI templates match alike.
    """
    operators = _OPERATOR.findall(template)
    rest = _OPERATOR.sub("", template)
    if "{**}" in operators[:-1] or any(char in rest for char in "*{}"):
        return None
    parts = [re.escape(decoded_pattern(part)) for part in _OPERATOR.split(template)]
    expression = parts[0]
    for operator, part in zip(operators, parts[1:], strict=True):
        expression += (".*" if operator == "{**}" else "[^/]+") + part
    pattern = re.compile(expression, re.DOTALL)
    return lambda path: pattern.fullmatch(path) is not None
