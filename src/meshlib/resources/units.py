"""The units and bounds that fields are declared with, and Go's notation for durations."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

__all__ = [
    "Base64",
    "Count",
    "Duration",
    "Percentage",
    "Port",
    "Range",
    "Seconds",
    "SecondsOrOff",
    "Status",
    "Timeout",
    "parse_duration",
    "parse_timeout",
]

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST_TEXT = 64
_MAX_SECONDS = 365 * 24 * 3600.0
_MIN_SECONDS = 0.001
_UINT32 = 2**32 - 1


class Range(NamedTuple):
    """Both ends of what a number may be."""

    low: float
    high: float


class Duration:
    """Marks a number of seconds that documents write in Go's notation."""


class Timeout:
    """Marks a duration that may be 0s: no bound."""


class Base64Text:
    """Marks bytes that documents write in base64."""


Seconds = Annotated[float, Duration]
SecondsOrOff = Annotated[float, Timeout]
Base64 = Annotated[bytes, Base64Text]
Port = Annotated[int, Range(1, 65535)]
Status = Annotated[int, Range(200, 599)]
Percentage = Annotated[float, Range(0, 100)]
Count = Annotated[int, Range(0, _UINT32)]


def parse_timeout(text: str) -> float:
    """As `parse_duration`, and 0 for "0s", by which Istio turns a timeout off."""
    return 0.0 if re.fullmatch(r"0(ms|s|m|h)?", text) else parse_duration(text)


def parse_duration(text: str) -> float:
    """Seconds from Go's notation: "1.5s", "250ms", "1h30m", "2000us".

    Raises:
        ValueError: its text says what is wrong and what is expected. Istio takes nothing below a millisecond; a year
            is the most, so that no timer overflows.
    """
    seconds, end = 0.0, 0
    if len(text) <= _LONGEST_TEXT:
        while part := _PART.match(text, end):
            seconds += float(part[1]) * _UNITS[part[2]]
            end = part.end()
    if not end or end != len(text):
        raise ValueError(_fault(text))
    if seconds < _MIN_SECONDS * (1 - 1e-9):
        raise ValueError("is below 1ms, the shortest duration; leave the field out for its default")
    if seconds > _MAX_SECONDS:
        raise ValueError("is longer than a year; 8760h is the longest duration")
    return seconds


def _fault(text: str) -> str:
    if text.startswith("-"):
        return "is negative; a duration is at least 1ms"
    if re.fullmatch(r"[0-9.]{1,20}", text):
        return f'has no unit; write "{text}s" for seconds or "{text}ms" for milliseconds'
    return 'is not a duration; numbers with the units h, m, s, ms or us are expected, as in "1.5s", "250ms", "1h30m"'
