"""The channels of one transport: one for each endpoint, and for asyncio and trio one set for each event loop."""

from __future__ import annotations

import abc
import asyncio
import functools
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import anyio
from anyio.lowlevel import RunVar

from meshlib.plan.cluster import Cluster, Limits
from meshlib.plan.peers import PeerTls
from meshlib.plan.plan import Plan
from meshlib.state.endpoint import EndpointState
from meshlib.waiting import trio_here
from meshlib.wire.forking import renew_in_children, set_aside
from meshlib.wire.keeper import at_the_end
from meshlib.wire.message import AsyncReply, Request, SyncReply, Timing
from meshlib.wire.tls import Tls

if TYPE_CHECKING:
    from meshlib.wire.outgoing import Outgoing
    from meshlib.wire.transport import MeshView, Options

__all__ = ["AsyncChannels", "SyncChannels"]

Key = tuple[str, int, str, float, int, PeerTls | None]
"""Address, authority of `https` ("" for `http`), idle timeout, requests per connection, TLS of the mesh's own."""


class Channel(Protocol):
    """What is common to every kind of channel."""

    def close(self) -> None:
        """Close what is idle now and what is busy when it ends."""


class AsyncChannel(Channel, Protocol):
    """What the async transport sends through."""

    async def send(self, request: Request, timing: Timing) -> AsyncReply:
        """Send a request and wait for the response head."""


class SyncChannel(Channel, Protocol):
    """What the sync transport sends through."""

    def send(self, request: Request, timing: Timing) -> SyncReply:
        """Send a request and wait for the response head."""


ChannelT = TypeVar("ChannelT", bound=Channel)


class ChannelSet(abc.ABC, Generic[ChannelT]):
    """Channels by endpoint (and by what else a connection depends on); those of retired endpoints are closed.

    Args:
        options: of the transport.
        tls: the context for `https://` hosts.
        mesh: whose `peers` secure connections to endpoints that the plan wants secured.
    """

    __slots__ = ("__weakref__", "_channels", "_lock", "_mesh", "_options", "_plain", "_plan", "_tls")

    def __init__(self, options: Options, tls: Tls, mesh: MeshView) -> None:
        self._options = options
        self._tls = tls
        self._mesh = mesh
        self._channels: dict[Key, ChannelT] = {}
        # A shorter way to those for http, for the cluster it was found for: a call that began under an earlier plan may
        # secure its endpoint otherwise.
        self._plain: dict[EndpointState, tuple[Cluster | None, ChannelT]] = {}
        self._plan: Plan | None = None
        self._lock = threading.Lock()
        renew_in_children(self)

    def after_fork(self) -> None:
        """See `Forkable`."""
        set_aside(self._channels)
        self._channels, self._plain = {}, {}
        self._plan = None
        self._lock = threading.Lock()

    def follow(self, plan: Plan) -> None:
        """Take note of the plan in force; to be called when it is another than before."""
        with self._lock:
            self._plan = plan
            self._plain = {}
            used = _used(plan)
            retired = [key for key in self._channels if (*key[:2], bool(key[2]), *key[3:]) not in used]
            gone = [self._channels.pop(key) for key in retired]
        for channel in gone:
            channel.close()

    def get(self, endpoint: EndpointState, out: Outgoing) -> ChannelT:
        """The channel to an endpoint."""
        cluster = out.call.cluster
        known = self._plain.get(endpoint)
        if known is not None and known[0] is cluster and out.scheme == "http":
            return known[1]
        limits = cluster.limits if cluster is not None else NO_LIMITS
        peer, authority = None, ""
        if out.scheme == "https":
            authority = out.request.url.host
        elif cluster is not None:
            peer = cluster.peers.get((endpoint.host, endpoint.port))
        key = (endpoint.host, endpoint.port, authority, limits.idle_timeout, limits.requests_per_connection, peer)
        with self._lock:
            channel = self._channels.get(key)
            if channel is None:
                channel = self._channels[key] = self._open(endpoint, out, limits, peer)
            if out.scheme == "http":
                self._plain[endpoint] = cluster, channel
        return channel

    def _open(self, endpoint: EndpointState, out: Outgoing, limits: Limits, peer: PeerTls | None) -> ChannelT:
        bounds = {"idle_timeout": limits.idle_timeout, "max_requests": limits.requests_per_connection}
        channel: ChannelT
        if out.scheme == "https":
            channel = self._tls_class()(
                endpoint.host,
                endpoint.port,
                scheme="https",
                authority=out.request.url.host,
                ssl_context=self._tls.context(),
                http2=self._options.http2,
                **bounds,
            )
        else:
            secured = None if peer is None else functools.partial(self._mesh.peers.get, peer)
            channel = self._plain_class()(endpoint.host, endpoint.port, secured=secured, **bounds)
        return channel

    @abc.abstractmethod
    def _plain_class(self) -> Any:
        """The class of channels for `http://`, imported when it is first needed."""

    @abc.abstractmethod
    def _tls_class(self) -> Any:
        """The class of channels for `https://`, imported when it is first needed."""

    def at(self, plan: Plan) -> Self:
        """This set, made to follow `plan`."""
        if plan is not self._plan:
            self.follow(plan)
        return self

    def close(self) -> None:
        """Close every channel."""
        with self._lock:
            channels, self._channels, self._plain = list(self._channels.values()), {}, {}
        for channel in channels:
            channel.close()


NO_LIMITS = Limits()


def _used(plan: Plan) -> set[tuple[str, int, bool, float, int, PeerTls | None]]:
    """The keys of channels a plan may use, with whether it is `https` in place of the authority."""
    used: set[tuple[str, int, bool, float, int, PeerTls | None]] = set()
    for cluster in plan.clusters.values():
        limits = cluster.limits
        for state in cluster.endpoints:
            address = (state.host, state.port)
            bounds = (limits.idle_timeout, limits.requests_per_connection)
            used.add((*address, True, *bounds, None))
            used.add((*address, False, *bounds, cluster.peers.get(address)))
    return used


class SyncChannels(ChannelSet[SyncChannel]):
    """The channels of a sync transport."""

    __slots__ = ()

    def _plain_class(self) -> Any:
        from meshlib.wire.blocking import SyncChannel as Blocking

        return Blocking

    def _tls_class(self) -> Any:
        from meshlib.wire.fallback import SyncFallbackChannel  # httpcore is needed only here

        return SyncFallbackChannel


class LoopChannels(ChannelSet[AsyncChannel]):
    """The channels of an async transport on one event loop."""

    __slots__ = ("_asyncio", "keeper", "sleep")

    def __init__(self, options: Options, tls: Tls, mesh: MeshView, *, on_asyncio: bool) -> None:
        super().__init__(options, tls, mesh)
        self._asyncio = on_asyncio
        self.keeper: object = None
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep if on_asyncio else anyio.sleep

    def _plain_class(self) -> Any:
        if self._asyncio:
            from meshlib.wire.channel import AsyncChannel as Native

            return Native
        from meshlib.wire.portable import PortableChannel

        return PortableChannel

    def _tls_class(self) -> Any:
        from meshlib.wire.fallback import AsyncFallbackChannel  # httpcore is needed only here

        return AsyncFallbackChannel


class AsyncChannels:
    """The channels of an async transport: a set for each event loop, because a connection belongs to its loop."""

    __slots__ = ("__weakref__", "_last", "_lock", "_mesh", "_options", "_sets", "_tls", "_trio")

    def __init__(self, options: Options, tls: Tls, mesh: MeshView) -> None:
        self._mesh = mesh
        self._options = options
        self._tls = tls
        self._sets: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopChannels] = weakref.WeakKeyDictionary()
        # One store, so that two threads with a loop each never see the one's loop beside the other's set.
        self._last: tuple[weakref.ref[asyncio.AbstractEventLoop], LoopChannels] | None = None
        self._trio: RunVar[LoopChannels] = RunVar("meshlib.channels")
        # Reentrant, for a loop's end may be noticed, by the garbage collector, while we hold it.
        self._lock = threading.RLock()
        renew_in_children(self)

    def after_fork(self) -> None:
        """See `Forkable`."""
        self._lock = threading.RLock()

    def at(self, plan: Plan) -> LoopChannels:
        """The set of the running event loop, made to follow `plan`."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            found = self._for_trio()
        else:
            last = self._last
            found = last[1] if last is not None and last[0]() is loop else self._for_loop(loop)
        if plan is not found._plan:
            found.follow(plan)
        return found

    def _for_loop(self, loop: asyncio.AbstractEventLoop) -> LoopChannels:
        with self._lock:
            found = self._sets.get(loop)
            if found is None:
                for closed in [other for other in list(self._sets) if other.is_closed()]:
                    self._sets.pop(closed, None)
                found = self._sets[loop] = LoopChannels(self._options, self._tls, self._mesh, on_asyncio=True)
                found.keeper = at_the_end(functools.partial(self._end, loop))
        self._last = weakref.ref(loop), found
        return found

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop is about to end: its connections can't be closed later."""
        with self._lock:
            found = self._sets.pop(loop, None)
        if found is not None:
            found.close()
        last = self._last
        if last is not None and last[1] is found:
            self._last = None

    def _for_trio(self) -> LoopChannels:
        found = self._trio.get(None)
        if found is None:
            found = LoopChannels(self._options, self._tls, self._mesh, on_asyncio=False)
            found.keeper = at_the_end(found.close)
            self._trio.set(found)
        return found

    def close(self) -> None:
        """Close every channel: at once those of the running loop, on their own loops the others."""
        with self._lock:
            every = list(self._sets.values())
        for channels in every:
            channels.close()
        if trio_here() is not None:
            trio = self._trio.get(None)
            if trio is not None:
                trio.close()
