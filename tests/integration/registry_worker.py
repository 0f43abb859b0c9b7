"""A process that holds a lease and applies pairs of documents until it is killed; see `test_registry_processes`."""

from __future__ import annotations

import asyncio
import itertools
import sys

from meshlib.errors import RegistryError
from meshlib.registries import Instance, open_registry
from tests.contract.documents import entry


async def main(url: str, port: int, pause: float) -> None:
    registry = open_registry(url)
    lease = await registry.register(Instance("web", "127.0.0.1", port), ttl=3.0)
    for number in itertools.count():
        try:
            await registry.apply([entry(f"{side}-{port}", f"round-{number}.example") for side in ("left", "right")])
            await lease.renew()
        except RegistryError as error:
            if "locked" not in str(error) and "written by another" not in str(error):
                raise
        else:
            print(number, flush=True)
        await asyncio.sleep(pause)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
