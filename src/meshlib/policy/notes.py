"""What happened to a request on the way in that is only counted and logged."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Note", "NoteKind"]

NoteKind = Literal["dry-run", "audit", "uncounted"]
"""What would have been refused, what was only watched, what couldn't be checked and was let in."""


class Note(NamedTuple):
    """What happened on the way in and is only counted and logged.

    Attributes:
        kind: what it is.
        by: a policy's `namespace/name`, a limit's name.
        says: for the log: everything.
    """

    kind: NoteKind
    by: str
    says: str

    def __str__(self) -> str:
        return self.says
