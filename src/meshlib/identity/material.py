"""What an identity is made of, and where it comes from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol

from meshlib.errors import IdentityError
from meshlib.identity.spiffe import SpiffeId

__all__ = ["IdentitySource", "Material"]


class Material(NamedTuple):
    """One X.509-SVID and whom to trust.

    Attributes:
        id: the one URI SAN of the certificate.
        certificates: PEM, the leaf first, then what leads from it to a root.
        key: PEM, of the leaf. Never logged, never in a `repr`.
        roots: PEM, the CAs of our trust domain; during a rotation of roots all that are trusted meanwhile.
        not_before, not_after: of the leaf, Unix seconds.
    """

    id: SpiffeId
    certificates: bytes
    key: bytes
    roots: bytes
    not_before: float
    not_after: float

    def __repr__(self) -> str:
        return f"<Material {self.id}, until {self.not_after:.0f}>"


class IdentitySource(Protocol):
    """Where material comes from. Runs on the agent's thread only, on its asyncio loop."""

    @property
    def url(self) -> str:
        """What MESHLIB_IDENTITY says, in its full form."""

    def watch(self) -> AsyncGenerator[Material | IdentityError, None]:
        """The material in force, and every later one well before the earlier expires.

        Each item is whole: key, certificate and roots fit together. An error is yielded as a value, once per change of
        error, and the iteration goes on.
        """

    async def aclose(self) -> None:
        """Let go of files and connections."""
