"""What a command prints: tables, colour, errors."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from meshlib.errors import MeshError

__all__ = ["CommandError", "UsageError", "paint", "table", "warn"]

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_GAP = "   "


class CommandError(MeshError):
    """What was asked for can't be done; the message is for the user."""


class UsageError(CommandError):
    """The arguments make no sense together; the message is for the user."""


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """`text` in colour when `stream` (by default stdout) is a terminal and NO_COLOR is not set (no-color.org)."""
    stream = stream or sys.stdout
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table, columns as wide as they need be; an empty cell is shown as `-`."""
    cells = [heads, *([cell or "-" for cell in row] for row in rows)]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(heads))]
    for row in cells:
        padded = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        yield _GAP.join(padded).rstrip()


def warn(text: str) -> None:
    """Say something beside the answer, on stderr."""
    print(f"{paint('warning:', 'yellow', sys.stderr)} {text}", file=sys.stderr)


def _width(text: str) -> int:
    return len(_ESCAPES.sub("", text))
