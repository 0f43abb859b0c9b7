"""A watch that tests read item by item."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from meshlib.errors import RegistryError
from meshlib.registries.base import Registry, Update

PATIENCE = 10.0


class Watching:
    """The items of one watch, in order."""

    def __init__(self, items: AsyncIterator[Update | RegistryError]) -> None:
        self._items = items

    async def update(self) -> Update:
        """The next item, which must be an update."""
        item = await asyncio.wait_for(anext(self._items), PATIENCE)
        assert isinstance(item, Update), item
        return item

    async def error(self) -> RegistryError:
        """The next item, which must be an error."""
        item = await asyncio.wait_for(anext(self._items), PATIENCE)
        assert isinstance(item, RegistryError), item
        return item

    async def settled(self) -> Update:
        """The next update, after as many errors as may come."""
        async with asyncio.timeout(PATIENCE):
            async for item in self._items:
                if isinstance(item, Update):
                    return item
        raise AssertionError("the watch ended")


@asynccontextmanager
async def watching(registry: Registry) -> AsyncIterator[Watching]:
    try:
        async with aclosing(registry.watch()) as items:
            yield Watching(items)
    finally:
        await registry.aclose()
