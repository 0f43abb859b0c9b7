r"""Regular expressions that are safe to run on what strangers send.

Istio's are RE2's, which never backtracks. Python's engine does, so this module refuses what could make it take much
more than linear time. Inside a repeat the next character must always decide which way to go: each way to go on from a
place begins with different characters (strong determinism, judged on the places of Glushkov's construction). Outside
repeats the ways may overlap, as in `.*/items/.*`, as long as their number stays small.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["regex_fault"]

_parser: Any = importlib.import_module("re._parser")
_MAX_LENGTH = 1024
_MAX_COUNT = 1000
_MAX_WAYS = 4_000_000
_UNBOUNDED_WAYS = 1000

# A set of characters is an integer: a bit for each of ASCII, and one each for the words, spaces and rest beyond it.
_ASCII = 128
_OTHER_WORD, _OTHER_SPACE, _OTHER_REST = 1 << _ASCII, 1 << _ASCII + 1, 1 << _ASCII + 2
_OTHER = _OTHER_WORD | _OTHER_SPACE | _OTHER_REST
_ANY = (1 << _ASCII + 3) - 1
_FOLDS_CASE = re.compile(r"\(\?[a-zA-Z]*i")

_CATEGORIES: Mapping[str, Callable[[str], bool]] = {
    "DIGIT": str.isdigit,
    "SPACE": str.isspace,
    "WORD": lambda character: character.isalnum() or character == "_",
}
_REFUSED = {
    "ASSERT": "lookaround",
    "ASSERT_NOT": "lookaround",
    "GROUPREF": "a backreference",
    "GROUPREF_IGNORE": "a backreference",
    "GROUPREF_EXISTS": "a conditional group",
    "ATOMIC_GROUP": "an atomic group",
    "POSSESSIVE_REPEAT": "a possessive repeat",
}


def regex_fault(pattern: str) -> str | None:
    """What is wrong with a regular expression, None when it is sound and quick on every text."""
    if len(pattern) > _MAX_LENGTH:
        return f"has {len(pattern)} characters; at most {_MAX_LENGTH} are allowed"
    try:
        if _odd_class(pattern):
            return "has a class inside a class or a set operation; escape '[', '--', '&&', '||' and '~~' within [ ]"
        tree = _parser.parse(pattern)
        _Analysis(ignore_case=_FOLDS_CASE.search(pattern) is not None).whole(list(tree))
    except (re.error, OverflowError) as error:
        return f"is not a regular expression: {error}"
    except RecursionError:
        return "is nested too deeply"
    except _Refused as refusal:
        return str(refusal)
    return None


class _Refused(Exception):
    """The pattern is well formed but not allowed."""


class _Place:
    """A place in the pattern that matches one character, or the entry of a sequence.

    Attributes:
        follow: the characters that may come next.
        ways: how many ways the repeats that lead on from here offer.
    """

    __slots__ = ("follow", "ways")

    def __init__(self) -> None:
        self.follow = 0
        self.ways = 1


class _Part(NamedTuple):
    """A part of the pattern: the characters it may begin with, where it may end, whether it may be empty."""

    first: int
    last: Sequence[_Place]
    empty: bool


class _Analysis:
    def __init__(self, *, ignore_case: bool) -> None:
        self._ignore_case = ignore_case
        self._total = 1

    def whole(self, nodes: Sequence[Any]) -> None:
        part = self.sequence(nodes, looped=False)
        # A repeat at the end is run through once more for each way to get there, unless it takes whatever is left.
        trailing = max((place.ways for place in part.last if place.follow != _ANY), default=1)
        if self._total > 1 and trailing > 1:
            self._overlap(trailing, looped=False)

    def sequence(self, nodes: Sequence[Any], *, looped: bool) -> _Part:
        entry = _Place()
        open_places: list[_Place] = [entry]
        for node in nodes:
            part = self._node(node, looped=looped)
            clashing = [place for place in open_places if place.follow & part.first]
            if clashing:
                self._overlap(max(place.ways for place in clashing), looped=looped)
            for place in open_places:
                place.follow |= part.first
                place.ways = max(place.ways, 2) if part.empty else place.ways
            open_places = [*part.last, *(open_places if part.empty else ())]
        return _Part(entry.follow, [place for place in open_places if place is not entry], entry in open_places)

    def _node(self, node: Any, *, looped: bool) -> _Part:
        kind, value = str(node[0]), node[1]
        match kind:
            case "MAX_REPEAT" | "MIN_REPEAT":
                return self._repeat(*value, looped=looped)
            case "SUBPATTERN":
                return self.sequence(list(value[3]), looped=looped)
            case "BRANCH":
                return self._branch([list(branch) for branch in value[1]], looped=looped)
            case "AT":
                return _Part(0, (), True)
        if kind in _REFUSED:
            raise _Refused(f"uses {_REFUSED[kind]}, which RE2 doesn't have either")
        return _Part(self._characters(kind, value), [_Place()], False)

    def _repeat(self, low: Any, high: Any, body: Any, *, looped: bool) -> _Part:
        unbounded = int(high) >= int(_parser.MAXREPEAT)
        if int(low) > _MAX_COUNT or (int(high) > _MAX_COUNT and not unbounded):
            raise _Refused(f"repeats more than {_MAX_COUNT} times")
        again = unbounded or int(high) > 1
        part = self.sequence(list(body), looped=looped or again)
        if again:
            if part.empty or any(place.follow & part.first for place in part.last):
                self._overlap(1, looped=True)
            for place in part.last:
                place.follow |= part.first
        elif part.empty and int(low) == 0:
            self._overlap(2, looped=looped)  # empty by leaving it out, or by going through it
        ways = min(_UNBOUNDED_WAYS, int(high) - int(low) + 1)
        for place in part.last:
            place.ways = max(place.ways, ways)
        return _Part(part.first, part.last, part.empty or int(low) == 0)

    def _branch(self, branches: Sequence[Sequence[Any]], *, looped: bool) -> _Part:
        parts = [self.sequence(branch, looped=looped) for branch in branches]
        first = 0
        empty = 0
        for part in parts:
            empty += part.empty
            if first & part.first or (part.empty and empty > 1):
                self._overlap(2, looped=looped)
            first |= part.first
        last = [place for part in parts for place in part.last]
        return _Part(first, last, empty > 0)

    def _overlap(self, ways: int, *, looped: bool) -> None:
        if looped:
            raise _Refused(
                "could take exponential time: inside a repeat two ways to go on begin with the same character; avoid a"
                " repeat inside a repeat, and alternatives that begin alike"
            )
        self._total *= max(2, ways)
        if self._total > _MAX_WAYS:
            raise _Refused("could take too long: too many repeats or alternatives that overlap; make them distinct")

    def _characters(self, kind: str, value: Any) -> int:
        match kind:
            case "ANY":
                return _ANY
            case "LITERAL":
                return self._span(value, value)
            case "NOT_LITERAL":
                # Beyond ASCII a bit stands for many characters, so a negated one still leaves the others.
                return _ANY & ~self._span(value, value) | _OTHER
            case "IN":
                return self._class(value)
        return _ANY

    def _class(self, items: Sequence[Any]) -> int:
        mask, negated = 0, False
        for kind, value in items:
            match str(kind):
                case "NEGATE":
                    negated = True
                case "LITERAL":
                    mask |= self._span(value, value)
                case "RANGE":
                    mask |= self._span(*value)
                case "CATEGORY":
                    mask |= _category(str(value))
                case _:
                    return _ANY
        return _ANY & ~mask | _OTHER if negated else mask

    def _span(self, low: int, high: int) -> int:
        mask = sum(1 << code for code in range(low, min(high, _ASCII - 1) + 1)) | (_OTHER if high >= _ASCII else 0)
        if self._ignore_case:
            mask |= _both_cases(mask)
        return mask


def _both_cases(mask: int) -> int:
    letters = [chr(code) for code in range(_ASCII) if mask >> code & 1 and chr(code).isalpha()]
    # Some characters beyond ASCII fold to ASCII letters (the Kelvin sign, the long s).
    return sum({1 << ord(letter.swapcase()) for letter in letters}) | (_OTHER if letters else 0)


def _category(name: str) -> int:
    word = name.rpartition("_")[2]
    test = _CATEGORIES[word]
    inside = sum(1 << code for code in range(_ASCII) if test(chr(code)))
    beyond = _OTHER_SPACE if word == "SPACE" else _OTHER_WORD
    if "_NOT_" not in name:
        return inside | beyond
    return _ANY & ~inside & ~(0 if word == "DIGIT" else beyond)


def _odd_class(pattern: str) -> bool:
    """Whether a class holds what Python may read as a set operation one day, and RE2 reads as something else."""
    bare = re.sub(r"\\.", "..", pattern, flags=re.DOTALL)
    position = 0
    while (start := bare.find("[", position)) >= 0:
        start += 2 if bare[start + 1 : start + 2] == "^" else 1
        end = bare.find("]", start + 1)
        inside = bare[start : end if end >= 0 else len(bare)]
        if "[" in inside or any(mark in inside for mark in ("--", "&&", "||", "~~")):
            return True
        if end < 0:
            return False
        position = end + 1
    return False
