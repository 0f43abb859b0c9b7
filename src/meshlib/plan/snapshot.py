"""What a plan is compiled from."""

from __future__ import annotations

from typing import NamedTuple

from meshlib.registries.base import Instance
from meshlib.resources import Resource

__all__ = ["Snapshot"]


class Snapshot(NamedTuple):
    """A validated configuration.

    Attributes:
        instances: who is there.
        resources: what is wanted.
        version: changes when either does.
    """

    instances: tuple[Instance, ...] = ()
    resources: tuple[Resource, ...] = ()
    version: str = "empty"
