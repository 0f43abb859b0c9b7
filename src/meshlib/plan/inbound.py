"""What the plan says of requests coming in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from meshlib.resources import Intentions

__all__ = ["Inbound", "Mode"]

Mode = Literal["DISABLE", "PERMISSIVE", "STRICT"]


class Inbound(NamedTuple):
    """Immutable.

    Attributes:
        mode: PeerAuthentication's for this workload. Istio's default is PERMISSIVE.
        ports: the modes of single ports.
        intentions: who may call; None: no such system has a say.
    """

    mode: Mode = "PERMISSIVE"
    ports: Mapping[int, Mode] = {}
    intentions: Intentions | None = None

    def mode_of(self, port: int | None) -> Mode:
        """The mode of a port this process listens on; None: unknown."""
        return self.mode if port is None else self.ports.get(port, self.mode)
