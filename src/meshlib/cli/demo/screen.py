"""What the demo shows: lines that stay, and on a terminal a few that are drawn again and again below them."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

from meshlib.cli.output import paint

__all__ = ["Screen", "bar", "spark"]

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_LEVELS = "▁▂▃▄▅▆▇█"
_FILLS = "█▒░▚▞"
_COLOURS = ("blue", "green", "red", "yellow", "cyan")
WIDEST = 100


class Screen:
    """Lines on `stream`, by default stdout."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._drawn = 0
        self.lively = self._stream.isatty()

    @property
    def width(self) -> int:
        """Columns to write in."""
        return min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)

    def heading(self, number: int, title: str, text: str) -> None:
        """Begin a phase."""
        self.say()
        self.say(paint(f"{number}  {title}", "bold", self._stream))
        for line in textwrap.wrap(text, self.width - 4):
            self.say(f"   {line}")

    def say(self, line: str = "") -> None:
        """Write a line that stays."""
        self._erase()
        print(line, file=self._stream, flush=True)

    def draw(self, lines: Sequence[str]) -> None:
        """Show lines until others are shown; without a terminal nothing is."""
        if not self.lively:
            return
        self._erase()
        for line in lines:
            # A line that wraps would be two when it is erased.
            print(line if len(_ESCAPES.sub("", line)) < self.width else "", file=self._stream)
        self._stream.flush()
        self._drawn = len(lines)

    def cursor(self, *, shown: bool) -> None:
        """Show or hide the cursor."""
        if self.lively:
            self._erase()
            print("\x1b[?25h" if shown else "\x1b[?25l", end="", file=self._stream, flush=True)

    def _erase(self) -> None:
        if self._drawn:
            print(f"\x1b[{self._drawn}F\x1b[J", end="", file=self._stream)
            self._drawn = 0


def spark(values: Iterable[float]) -> str:
    """A small graph, from 0 to the greatest value."""
    numbers = list(values)
    most = max(numbers, default=0.0) or 1.0
    return "".join(_LEVELS[min(int(number / most * len(_LEVELS)), len(_LEVELS) - 1)] for number in numbers)


def bar(parts: Sequence[tuple[str, float]], width: int) -> str:
    """Shares side by side, each with a fill and a colour of its own, and beside them what they are.

    Args:
        parts: names and shares, 0 to 1.
        width: of the bar, in columns.
    """
    text, words, done, total = "", "", 0, 0.0
    for (name, share), fill, colour in zip(parts, _FILLS, _COLOURS, strict=False):
        total += share
        end = round(min(total, 1.0) * width)
        text += paint(fill * (end - done), colour)
        words += f"  {paint(fill, colour)} {name} {share:4.0%}"
        done = end
    return text + " " * (width - done) + words
