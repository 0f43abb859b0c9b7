"""What the demo claims, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from meshlib.cli.output import paint, table

__all__ = ["Claim", "crowded", "lines"]

CROWDED = 2.0
"""Processes that want to run, for each CPU, at which what is measured is the machine. The demo makes about one."""


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


def crowded(load: float, cpus: int) -> str | None:
    """What to say when the machine had too much to do for its measurements to count, else None.

    Args:
        load: processes that wanted to run, on average over the last minute.
        cpus: of the machine.
    """
    if load < CROWDED * cpus:
        return None
    return f"The machine was busy: {load:.1f} processes wanted its {cpus} CPUs. Try again when it has less to do."
