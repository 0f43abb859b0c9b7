"""What a forked child may not share with its parent: connections, and locks that another thread held just then."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["Forkable", "renew_in_children", "set_aside"]


class Forkable(Protocol):
    """Something that holds connections or locks."""

    def after_fork(self) -> None:
        """Begin afresh. Runs in the child, which has one thread yet; no lock of the parent's may be taken."""


_known: weakref.WeakSet[Forkable] = weakref.WeakSet()
_inherited: list[object] = []


def renew_in_children(one: Forkable) -> None:
    """Have `after_fork` of `one` called in every forked child, as long as it lives."""
    _known.add(one)


def set_aside(connections: object) -> None:
    """Keep a parent's connections, unused: closing them in the child could disturb the parent's event loop."""
    _inherited.append(connections)


def _after_fork() -> None:
    for one in list(_known):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
