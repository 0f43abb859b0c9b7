"""The fenced blocks of the documentation, so that tests can hold it to what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["DOCS", "PAGES", "PROJECT", "Block", "blocks"]

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
PAGES = (PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page: the file it stands in.
        line: of its first line, from 1.
        language: the first word behind the fence.
        marks: the other words.
        text: what is between the fences.
    """

    page: Path
    line: int
    language: str
    marks: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(PROJECT)}:{self.line}"


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """Give the blocks of a page in order, those of `languages` only where any are named."""
    opened: Block | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif opened is None:
            language, *marks = line.removeprefix("```").split() or [""]
            opened = Block(page, number + 1, language, tuple(marks), "")
            lines = []
        else:
            block, opened = opened._replace(text="".join(f"{line}\n" for line in lines)), None
            if not languages or block.language in languages:
                yield block
    assert opened is None, f"{opened}: the block isn't closed"
