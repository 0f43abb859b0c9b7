"""What a YAML scalar means: YAML 1.1 as the safe loaders read it, except that dates stay text."""

from __future__ import annotations

import math
import re

__all__ = ["plain", "tagged"]

_BOOLS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}
_BOOL = re.compile(r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF")
_NULL = re.compile(r"~|null|Null|NULL|")
_INT = re.compile(
    r"[-+]?(?:0b[01_]+|0[0-7_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(?::[0-5]?[0-9])*)",
)
_FLOAT = re.compile(
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*",
)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LONGEST_NUMBER = 64
_STR = "tag:yaml.org,2002:str"
_TYPED = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")}


def plain(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar.

    Raises:
        ValueError: a number that is not finite or doesn't fit 64 bits; no document can hold one.
    """
    if _NULL.fullmatch(text):
        return None
    if not (text[0].isdigit() or text[0] in "+-."):
        return _BOOLS[text.lower()] if _BOOL.fullmatch(text) else text
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INT.fullmatch(text):
        return _int(text)
    if _FLOAT.fullmatch(text):
        return _float(text)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number; write a finite one, or quote it if text is meant")
    return text


def tagged(text: str, tag: str) -> str | int | float | bool | None:
    """The value of a scalar that names its type.

    Raises:
        ValueError: a type other than YAML's own simple ones, or a text that isn't of its type.
    """
    if tag in (_STR, "!"):
        return text
    if tag not in _TYPED:
        raise ValueError(f"the tag {tag[:80]} is not supported; leave it out")
    value = plain(text)
    if isinstance(value, int) and not isinstance(value, bool) and tag.endswith(":float"):
        return float(value)
    if {bool: "bool", int: "int", float: "float"}.get(type(value), "null") != tag.rpartition(":")[2] or value == text:
        raise ValueError(f"{text[:80]!r} is not what its tag {tag} says; leave the tag out")
    return value


def _int(text: str) -> int:
    sign, digits = _signed(text)
    if ":" in digits:
        number = int(_base_60(digits))
    elif digits.startswith("0b"):
        number = int(digits[2:] or "0", 2)
    elif digits.startswith("0x"):
        number = int(digits[2:] or "0", 16)
    else:
        number = int(digits or "0", 8 if digits.startswith("0") else 10)
    if number >= 2**63:
        raise ValueError(f"{text} does not fit 64 bits; quote it if text is meant")
    return sign * number


def _float(text: str) -> float:
    sign, digits = _signed(text)
    number = _base_60(digits) if ":" in digits else float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for a number; quote it if text is meant")
    return sign * number


def _signed(text: str) -> tuple[int, str]:
    return -1 if text.startswith("-") else 1, text.lstrip("+-").replace("_", "")


def _base_60(digits: str) -> float:
    number = 0.0
    for part in digits.split(":"):
        number = number * 60 + float(part)
    return number
