"""The channels of one transport on many event loops."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import httpx

from meshlib.identity.outgoing import PeerContexts
from meshlib.state.store import StateStore
from meshlib.wire.channels import AsyncChannels, ChannelSet, LoopChannels
from meshlib.wire.tls import Tls
from meshlib.wire.transport import Options
from tests.unit.plan.compiled import compiled, reviews


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


class Recorded:
    """A channel that notes how it was made, and its end."""

    def __init__(self, host: str, port: int, **options: Any) -> None:
        self.secured = options["secured"]
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Channels(ChannelSet[Recorded]):
    def _plain_class(self) -> Any:
        return Recorded

    def _tls_class(self) -> Any:
        raise AssertionError("no https URL was called")


def test_a_channel_ends_when_its_endpoint_is_to_be_secured_otherwise() -> None:
    mesh: Any = SimpleNamespace(peers=PeerContexts(None))
    channels = Channels(Options(), Tls(httpx, verify=False, http2=False, trust_env=False), mesh)

    def channel(identity: str) -> Recorded:
        instance = reviews(1, identity=identity)
        plan = compiled(instances=[instance], identity=True)
        [cluster] = plan.clusters.values()
        [endpoint] = cluster.endpoints
        out: Any = SimpleNamespace(scheme="http", call=SimpleNamespace(cluster=cluster))
        found = channels.at(plan).get(endpoint, out)
        assert channels.get(endpoint, out) is found
        return found

    plain = channel("")
    assert plain.secured is None
    first = channel("spiffe://mesh.test/first")
    assert (plain.closed, first.closed) == (True, False)
    assert "MESHLIB_IDENTITY" in first.secured().problem
    assert channel("spiffe://mesh.test/first") is first
    second = channel("spiffe://mesh.test/second")
    assert (first.closed, second.closed) == (True, False)
    assert channel("").secured is None
    assert second.closed


def test_a_call_of_an_earlier_plan_opens_no_plain_way_for_later_ones() -> None:
    mesh: Any = SimpleNamespace(peers=PeerContexts(None))
    channels = Channels(Options(), Tls(httpx, verify=False, http2=False, trust_env=False), mesh)
    store = StateStore()

    def call(identity: str) -> tuple[Any, Any, Any]:
        plan = compiled(instances=[reviews(1, identity=identity)], identity=True, store=store)
        [cluster] = plan.clusters.values()
        [endpoint] = cluster.endpoints
        return plan, endpoint, SimpleNamespace(scheme="http", call=SimpleNamespace(cluster=cluster))

    _, endpoint, early = call("")
    plan, same, late = call("spiffe://mesh.test/reviews")
    assert same is endpoint
    channels.at(plan)
    assert channels.get(endpoint, early).secured is None  # its retry, after the plan has changed
    assert channels.get(endpoint, late).secured is not None
    assert channels.get(endpoint, early).secured is None
