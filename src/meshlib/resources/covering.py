"""Whether one rule of an AuthorizationPolicy holds whenever another does, and whether one can hold at all.

Both answer for certain: a "no" may only mean that it can't be told from the rules alone.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from meshlib.resources.authorization import (
    AuthorizationCondition,
    AuthorizationRule,
    AuthorizationSource,
    Operation,
)

__all__ = ["Shape", "contradiction", "covers", "shape_of"]

_BLOCKS = ("ip_blocks", "remote_ip_blocks", "source.ip", "remote.ip", "destination.ip")
_ANY_CASE = ("hosts",)
# Attributes with one value: two conditions on one of them must agree.
_SINGLE = ("source.namespace", "source.principal", "destination.port", "connection.sni", "request.auth.principal")

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Values = tuple[Sequence[str], Sequence[str]]

_Message = Mapping[str, _Values]
"""What a source or an operation says: of each field the values, and those that are excluded."""

_NOTHING: _Values = ((), ())


class Shape(NamedTuple):
    """A rule, made ready to be compared with many.

    Attributes:
        sources, operations: what each alternative says, by field.
        conditions: what is said of attributes, with the names of headers in lower case.
    """

    sources: Sequence[_Message]
    operations: Sequence[_Message]
    conditions: Sequence[tuple[str, _Values]]


def shape_of(rule: AuthorizationRule) -> Shape:
    """The shape of a rule."""
    return Shape(
        [_said(one.source) for one in rule.from_],
        [_said(one.operation) for one in rule.to],
        [(_key(one.key), (one.values, one.not_values)) for one in rule.when],
    )


def _key(written: str) -> str:
    return written.lower() if written.startswith("request.headers[") else written


def covers(wide: Shape, narrow: Shape) -> bool:
    """Whether `wide` holds for every request that `narrow` holds for."""
    return (
        _any_covers(wide.operations, narrow.operations)
        and _any_covers(wide.sources, narrow.sources)
        and all(
            any(key == other and _values_cover(key, said, theirs) for other, theirs in narrow.conditions)
            for key, said in wide.conditions
        )
    )


def contradiction(rule: AuthorizationRule) -> str:
    """Why a rule can never hold, "" when it may."""
    for field, messages in (("from", [one.source for one in rule.from_]), ("to", [one.operation for one in rule.to])):
        reasons = [_never(message) for message in messages]
        if reasons and all(reasons):
            return f"{field}: {reasons[0]}"
    for condition in rule.when:
        if excluded(condition.key, condition.values, condition.not_values):
            return f"when: notValues of {condition.key} exclude all of its values"
    return _disagreement(rule.when)


def excluded(name: str, values: Sequence[str], but: Sequence[str]) -> bool:
    """Whether what is excluded leaves none of the values."""
    return bool(values) and all(any(_value_covers(name, no, value) for no in but) for value in values)


def _any_covers(wide: Sequence[_Message], narrow: Sequence[_Message]) -> bool:
    if not wide:
        return True
    return bool(narrow) and all(any(_message_covers(one, other) for one in wide) for other in narrow)


def _message_covers(wide: _Message, narrow: _Message) -> bool:
    return all(_values_cover(name, said, narrow.get(name, _NOTHING)) for name, said in wide.items())


def _values_cover(name: str, wide: _Values, narrow: _Values) -> bool:
    values, but = wide
    theirs, without = narrow
    if values and not (theirs and all(any(_value_covers(name, one, value) for one in values) for value in theirs)):
        return False
    return all(
        any(_value_covers(name, other, no) for other in without)
        or (bool(theirs) and all(_apart(name, no, value) for value in theirs))
        for no in but
    )


def _said(message: AuthorizationSource | Operation) -> _Message:
    names = [name for name in message.__struct_fields__ if not name.startswith("not_")]
    both = {name: (getattr(message, name), getattr(message, f"not_{name}")) for name in names}
    return {name: said for name, said in both.items() if said != _NOTHING}


def _never(message: AuthorizationSource | Operation) -> str:
    for name, (values, but) in _said(message).items():
        if excluded(name, values, but):
            written = dict(zip(message.__struct_fields__, message.__struct_encode_fields__, strict=True))
            return f"{written[f'not_{name}']} excludes all of {written[name]}"
    if isinstance(message, AuthorizationSource) and message.principals and message.namespaces:
        homes = [_home(principal) for principal in message.principals]
        if not any(home is None or any(_value_covers("", one, home) for one in message.namespaces) for home in homes):
            return "none of principals is of one of namespaces"
    return ""


def _home(principal: str) -> str | None:
    """The namespace of an identity that is written whole, None where that can't be told."""
    parts = principal.split("/")
    return parts[2] if "*" not in principal and len(parts) > 2 and parts[1] == "ns" else None


def _disagreement(conditions: Sequence[AuthorizationCondition]) -> str:
    for index, one in enumerate(conditions):
        for other in conditions[:index]:
            if one.key == other.key in _SINGLE and one.values and other.values:
                plain = not any("*" in value for value in (*one.values, *other.values))
                if plain and not set(one.values) & set(other.values):
                    return f"when: two conditions on {one.key} have no value in common"
    return ""


@functools.lru_cache(maxsize=4096)
def _network(block: str) -> _Network:
    return ipaddress.ip_network(block, strict=False)


def _value_covers(name: str, wide: str, narrow: str) -> bool:
    """Whether everything that `narrow` matches, `wide` does, too."""
    if name in _BLOCKS:
        one, other = _network(wide), _network(narrow)
        return one.version == other.version and _inside(other, one)
    if name in _ANY_CASE:
        wide, narrow = wide.lower(), narrow.lower()
    if wide in ("*", narrow):
        return True
    if "{" in wide:
        return False
    if wide.startswith("*"):
        return not _open_ended(narrow) and "{" not in narrow and narrow.endswith(wide[1:])
    literal = narrow.partition("{")[0]
    return wide.endswith("*") and not narrow.startswith("*") and literal.startswith(wide[:-1])


def _inside(inner: _Network, outer: _Network) -> bool:
    return inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def _open_ended(value: str) -> bool:
    return value.endswith("*") and not value.startswith("*")


def _apart(name: str, one: str, value: str) -> bool:
    """Whether nothing is matched by both; for certain only where `value` is a single text, or both are blocks."""
    if name in _BLOCKS:
        return not _network(one).overlaps(_network(value))
    plain = "*" not in value and "{" not in value
    # Of namespaces and headers more than one star may be any text.
    comparable = "{" not in one and one.count("*") < 2 and "*" not in one[1:-1]
    return plain and comparable and not _value_covers(name, one, value)
