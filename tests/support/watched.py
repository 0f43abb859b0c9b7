"""An identity source's watch that tests read item by item."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from meshlib.errors import IdentityError
from meshlib.identity.material import Material

__all__ = ["Watch", "error", "material"]

PATIENCE = 20.0

Watch = AsyncGenerator[Material | IdentityError, None]


async def material(watch: Watch) -> Material:
    """The next item, which must be material."""
    said = await asyncio.wait_for(anext(watch), PATIENCE)
    assert isinstance(said, Material), said
    return said


async def error(watch: Watch) -> str:
    """What the next item says, which must be an error."""
    said = await asyncio.wait_for(anext(watch), PATIENCE)
    assert isinstance(said, IdentityError), said
    return str(said)
