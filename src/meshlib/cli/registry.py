"""How commands reach the registry."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from meshlib.cli.output import UsageError, warn
from meshlib.errors import RegistryError
from meshlib.registries import Registry, Update, open_registry
from meshlib.registries.base import EMPTY
from meshlib.settings import Settings, settings_from

__all__ = ["read", "settings_of", "snapshot", "with_registry"]

Answer = TypeVar("Answer")


def settings_of(arguments: argparse.Namespace) -> Settings:
    """MESHLIB_* as the global options change them. Raises SettingsError and UsageError."""
    settings = settings_from(registry=arguments.registry, namespace=arguments.namespace)
    if settings.registry.startswith("memory:"):
        raise UsageError(f"{settings.registry} is seen by its own process only: ask mesh.status and mesh.explain there")
    return settings


def with_registry(
    settings: Settings, work: Callable[[Registry], Awaitable[Answer]], *, serving: str | None = None
) -> Answer:
    """Run `work` on the registry and let go of it; see `open_registry` of `serving`. Raises RegistryError."""

    async def act() -> Answer:
        async with _opened(settings, serving) as registry:
            return await work(registry)

    return asyncio.run(act())


@contextlib.asynccontextmanager
async def _opened(settings: Settings, serving: str | None) -> AsyncIterator[Registry]:
    registry = open_registry(settings.registry, serving)
    try:
        yield registry
    finally:
        await registry.aclose()


async def snapshot(registry: Registry, *, warns: bool = True) -> Update:
    """What the registry holds; nothing when it is yet to be created. Raises RegistryError.

    Args:
        registry: to be read.
        warns: say on stderr what was passed over, or couldn't be seen: "not found" may be for that reason.
    """
    try:
        found = await registry.snapshot()
    except RegistryError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        return EMPTY
    for warning in found.warnings if warns else ():
        warn(warning)
    return found


def read(settings: Settings, *, warns: bool = True, serving: str | None = None) -> Update:
    """`snapshot` for verbs that only read: they say so when there is no registry yet. Raises RegistryError.

    Args:
        settings: name the registry.
        warns: see `snapshot`.
        serving: the service that is asked about as if this process were it, None: none.
    """

    async def look(registry: Registry) -> Update:
        found = await snapshot(registry, warns=warns)
        if found is EMPTY:
            print(f"{registry.url} does not exist yet: whoever registers or applies next creates it", file=sys.stderr)
        return found

    return with_registry(settings, look, serving=serving)
