"""What a plan is compiled from."""

from __future__ import annotations

from typing import NamedTuple

from meshlib.registries.base import Instance
from meshlib.resources import Intentions, Resource

__all__ = ["Snapshot"]


class Snapshot(NamedTuple):
    """A validated configuration.

    Attributes:
        instances: who is there.
        resources: what is wanted.
        version: changes when either does.
        asked, intentions: as on `registries.base.Update`.
        closed: why no request may come in, "" when they are judged: see `Inbound.closed`.
    """

    instances: tuple[Instance, ...] = ()
    resources: tuple[Resource, ...] = ()
    version: str = "empty"
    asked: frozenset[str] | None = None
    intentions: Intentions | None = None
    closed: str = ""
