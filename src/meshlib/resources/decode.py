"""Plain values as typed messages.

A reader is built once for every type and turns a value into it. Readers go on after a fault, so that a document's
faults are all reported at once; where a sound value can stand in for a bad one they answer it, and else `INVALID`.
"""

from __future__ import annotations

import base64
import binascii
import functools
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from meshlib.resources.documents import Path, show
from meshlib.resources.fields import APPROXIMATED, EXACT, TOLERANT, ignored_because, nearest
from meshlib.resources.units import Base64Text, Duration, Range, Timeout, parse_duration, parse_timeout

__all__ = ["INVALID", "Reader", "Report", "reader"]

INVALID: Any = object()
_BASE64_AT_MOST = 4 * 1024 * 1024
_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


class Report(Protocol):
    """Where readers say what they found."""

    def problem(self, path: Path, message: str) -> None: ...
    def note(self, path: Path, status: Literal["approximated", "ignored"], reason: Callable[[], str]) -> None: ...


Reader = Callable[[Any, Path, Report], Any]


@functools.cache
def reader(wanted: Any) -> Reader:
    """The reader of a type: a Struct, tuple[T, ...], dict[str, T], T | None, Literal, a scalar, or one with a unit."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Annotated:
        return _with_unit(arguments[0], arguments[1])
    if origin in (types.UnionType, typing.Union):
        return reader(next(argument for argument in arguments if argument is not types.NoneType))
    if origin is Literal:
        return functools.partial(_choice, arguments)
    if origin is tuple:
        return functools.partial(_list, reader(arguments[0]))
    if origin is dict:
        return functools.partial(_mapping, reader(arguments[1]))
    if issubclass(wanted, msgspec.Struct):
        return _struct(wanted)
    return functools.partial(_scalar, wanted)


def _with_unit(base: type, unit: Any) -> Reader:
    if unit is Duration:
        return functools.partial(_duration, parse_duration)
    if unit is Timeout:
        return functools.partial(_duration, parse_timeout)
    if unit is Base64Text:
        return _base64
    return functools.partial(_ranged, base, unit)


def _scalar(wanted: type, value: Any, path: Path, report: Report) -> Any:
    if type(value) is wanted:
        return value
    if wanted is float and type(value) is int:
        return float(value)
    way_out = "; put it in quotes" if wanted is str and isinstance(value, bool | int | float) else ""
    report.problem(path, f"expected {_NAMES[wanted]}, found {show(value)}{way_out}")
    return INVALID


def _ranged(wanted: type, bounds: Range, value: Any, path: Path, report: Report) -> Any:
    number = _scalar(wanted, value, path, report)
    if number is not INVALID and not bounds.low <= number <= bounds.high:
        report.problem(
            path, f"expected {_NAMES[wanted]} from {bounds.low:.0f} to {bounds.high:.0f}, found {show(value)}"
        )
        return wanted(bounds.low)
    return number


def _duration(parse: Callable[[str], float], value: Any, path: Path, report: Report) -> float:
    if not isinstance(value, str):
        way_out = f'; write "{value}s" for seconds' if type(value) in (int, float) else ""
        report.problem(path, f'expected a duration as in "1.5s", found {show(value)}{way_out}')
        return 1.0
    try:
        return parse(value)
    except ValueError as error:
        report.problem(path, f"{show(value)} {error}")
        return 1.0


def _base64(value: Any, path: Path, report: Report) -> Any:
    if isinstance(value, str) and len(value) <= _BASE64_AT_MOST:
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
    report.problem(path, f"expected bytes in base64, found {show(value)}")
    return b""


def _choice(allowed: tuple[str, ...], value: Any, path: Path, report: Report) -> Any:
    if isinstance(value, str) and value in allowed:
        return value
    hint = nearest(value, allowed) if isinstance(value, str) else ""
    report.problem(path, f"expected one of {', '.join(allowed)}, found {show(value)}{hint}")
    return allowed[0]


def _list(item: Reader, value: Any, path: Path, report: Report) -> Any:
    if not isinstance(value, list):
        report.problem(path, f'expected a list, found {show(value)}; write each entry behind "- "')
        return INVALID
    items = tuple([item(entry, (*path, index), report) for index, entry in enumerate(value)])
    return INVALID if any(entry is INVALID for entry in items) else items


def _mapping(item: Reader, value: Any, path: Path, report: Report) -> Any:
    if not isinstance(value, dict):
        report.problem(path, f"expected a mapping, found {show(value)}")
        return INVALID
    entries = {key: item(entry, (*path, key), report) for key, entry in value.items()}
    return INVALID if any(entry is INVALID for entry in entries.values()) else entries


def _struct(owner: type[msgspec.Struct]) -> Reader:
    hints = typing.get_type_hints(owner, include_extras=True)
    fields = {field.encode_name: field for field in msgspec.structs.fields(owner)}
    readers = {name: reader(hints[field.name]) for name, field in fields.items()}
    optional = {name for name, field in fields.items() if types.NoneType in typing.get_args(hints[field.name])}

    def read(value: Any, path: Path, report: Report) -> Any:
        if not isinstance(value, dict):
            report.problem(path, f"expected a mapping with {', '.join(list(fields)[:6])}, found {show(value)}")
            return INVALID
        given: dict[str, Any] = {}
        for name, entry in value.items():
            if name in fields:
                if entry is not None:
                    _note_approximation(owner, name, entry, (*path, name), report)
                    given[fields[name].name] = readers[name](entry, (*path, name), report)
                elif name in optional:
                    given[fields[name].name] = None
            elif owner in EXACT:
                why = ignored_because(owner, name, fields)
                report.problem((*path, name), f"{why}; here a field changes who may come in, so none is passed over")
            elif owner not in TOLERANT:
                report.note((*path, name), "ignored", functools.partial(ignored_because, owner, name, fields))
        missing = [name for name, field in fields.items() if field.required and field.name not in given]
        for name in missing:
            report.problem((*path, name), "is required and missing")
        return INVALID if missing or any(entry is INVALID for entry in given.values()) else owner(**given)

    return read


def _note_approximation(owner: type, name: str, value: Any, path: Path, report: Report) -> None:
    approximation = APPROXIMATED.get((owner, name))
    if approximation is not None and approximation.value in (None, value):
        report.note(path, "approximated", lambda: approximation.reason)
