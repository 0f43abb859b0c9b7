"""What becomes of a question whose task fails in a way nobody foresaw."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from meshlib.registries.consul.address import consul_settings
from meshlib.registries.consul.client import Answer, ConsulClient
from meshlib.registries.consul.registry import ConsulRegistry


class Broken(ConsulClient):
    """Fails when it is asked for documents, in a way that no error of Consul's is; says nothing else."""

    def __init__(self) -> None:
        super().__init__(consul_settings("consul://127.0.0.1:1", {}))

    async def request(self, method: str, path: str, *_: Any, **__: Any) -> Answer:
        if path.startswith("/v1/kv/"):
            raise KeyError("nobody foresaw this")
        await asyncio.sleep(3600)
        raise AssertionError


async def watched() -> None:
    async with aclosing(ConsulRegistry(Broken()).watch()) as updates:
        await anext(updates)


async def looked_at() -> None:
    await ConsulRegistry(Broken()).snapshot()


@pytest.mark.parametrize("look", [watched, looked_at])
def test_it_is_raised_where_the_answer_is_waited_for(look: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await look()

    with pytest.raises(KeyError, match="nobody foresaw"):
        asyncio.run(main())
