"""The channels of one transport on many event loops."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import httpx

from meshlib.identity.outgoing import PeerContexts
from meshlib.wire.channels import AsyncChannels, LoopChannels
from meshlib.wire.tls import Tls
from meshlib.wire.transport import Options
from tests.unit.plan.compiled import compiled


def test_a_loop_that_begins_in_another_thread_meanwhile_disturbs_nobody() -> None:
    tls = Tls(httpx, verify=False, http2=False, trust_env=False)
    plain: Any = SimpleNamespace(peers=PeerContexts(None))
    channels = AsyncChannels(Options(), tls, plain)
    loops: list[Loop] = []

    class Loop:
        """Another thread's; when it is looked at, one more begins."""

        def __init__(self) -> None:
            loops.append(self)
            own = LoopChannels(Options(), tls, plain, on_asyncio=True)
            channels._sets[cast("asyncio.AbstractEventLoop", self)] = own

        def is_closed(self) -> bool:
            Loop()
            return False

    Loop()

    async def main() -> Any:
        return channels.at(compiled()) is channels.at(compiled())

    assert asyncio.run(main())
