"""What the demo claims, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from meshlib.cli.output import paint, table

__all__ = ["Claim", "lines"]


class Claim(NamedTuple):
    """One claim, in words.

    Attributes:
        phase: the number of the phase it belongs to.
        says: what is claimed.
        asked: the value it should have.
        measured: the value it has.
        true: whether that is good enough.
    """

    phase: int
    says: str
    asked: str
    measured: str
    true: bool

    def __str__(self) -> str:
        return f"{self.mark} {self.says}: {self.measured} (asked: {self.asked})"

    @property
    def mark(self) -> str:
        """✓ or ✗."""
        return paint("✓", "green") if self.true else paint("✗", "red")


def lines(claims: Sequence[Claim]) -> Iterator[str]:
    """All claims as a table."""
    yield from table(
        ["", "CLAIM", "ASKED", "MEASURED"],
        [(f"{claim.mark} {claim.phase}", claim.says, claim.asked, claim.measured) for claim in claims],
    )
