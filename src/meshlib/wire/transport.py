"""The transports: what an httpx client is given so that its calls live in the mesh.

The classes are made once for each HTTP client library, because httpx and httpx2 insist on their own base classes.
"""

from __future__ import annotations

from random import random
from time import monotonic, sleep
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import anyio.to_thread

from meshlib.call.drivers import adrive, drive
from meshlib.call.effects import LocalReply, Outcome, Send
from meshlib.call.flow import call_flow
from meshlib.identity.outgoing import PeerContexts
from meshlib.plan.plan import Plan
from meshlib.wire.bodies import body_classes
from meshlib.wire.channels import AsyncChannels, LoopChannels, SyncChannels
from meshlib.wire.message import InvalidRequest, Reply, WireError
from meshlib.wire.outgoing import (
    EXTENSION,
    AsyncStream,
    Outgoing,
    SyncStream,
    local_reply,
    outgoing,
    raise_failure,
    retry_after,
    unknown_host,
)
from meshlib.wire.passthrough import AsyncPassthrough, Passthrough
from meshlib.wire.race import run_race
from meshlib.wire.tls import Tls

if TYPE_CHECKING:
    from meshlib.call.effects import Race

__all__ = ["MeshView", "Options", "Transports", "transports"]


class MeshView(Protocol):
    """What a transport needs of the mesh."""

    plan: Plan | None
    """In force now; None before the first is there."""

    peers: PeerContexts
    """How endpoints that the plan wants secured are spoken to."""

    def ready(self) -> Plan:
        """Start if need be, and wait for the first plan."""

    async def aready(self) -> Plan:
        """The same without blocking the event loop."""

    def look_up(self, name: str) -> Plan:
        """Ask the registry for the service of this full name; the plan in force then."""

    async def alook_up(self, name: str) -> Plan:
        """The same without blocking the event loop."""


class Options(NamedTuple):
    """How a transport was asked for; `extra` goes to the client library's own transport for hosts outside the mesh."""

    http2: bool = False
    verify: Any = True
    trust_env: bool = True
    extra: tuple[tuple[str, Any], ...] = ()


class Transports(NamedTuple):
    """The transport classes for one client library."""

    sync: type[Any]
    asynchronous: type[Any]


class AsyncExchange:
    """How the async driver acts for one call."""

    __slots__ = ("_channels", "_outgoing")

    def __init__(self, channels: LoopChannels, outgoing: Outgoing) -> None:
        self._channels = channels
        self._outgoing = outgoing

    async def send(self, send: Send) -> Outcome:
        out = self._outgoing
        channel = self._channels.get(send.endpoint, out)
        try:
            reply = await channel.send(out.wire_request(send, monotonic()), out.timing(send))
        except WireError as error:
            return Outcome(failure=error.failure, error=error, sent=error.sent)
        except InvalidRequest as error:
            raise out.client.LocalProtocolError(str(error), request=out.request) from error
        return _outcome(reply)

    async def discard(self, outcome: Outcome) -> None:
        try:
            if outcome.response is not None and not isinstance(outcome.response, LocalReply):
                await outcome.response.body.aclose()
        finally:
            if outcome.ticket is not None:
                outcome.ticket.release()

    async def sleep(self, seconds: float) -> None:
        await self._channels.sleep(seconds)

    async def race(self, race: Race) -> Outcome:
        return await run_race(race, self)


class SyncExchange:
    """How the sync driver acts for one call."""

    __slots__ = ("_channels", "_outgoing")

    def __init__(self, channels: SyncChannels, outgoing: Outgoing) -> None:
        self._channels = channels
        self._outgoing = outgoing

    def send(self, send: Send) -> Outcome:
        out = self._outgoing
        channel = self._channels.get(send.endpoint, out)
        try:
            reply = channel.send(out.wire_request(send, monotonic()), out.timing(send))
        except WireError as error:
            return Outcome(failure=error.failure, error=error, sent=error.sent)
        except InvalidRequest as error:
            raise out.client.LocalProtocolError(str(error), request=out.request) from error
        return _outcome(reply)

    def discard(self, outcome: Outcome) -> None:
        try:
            if outcome.response is not None and not isinstance(outcome.response, LocalReply):
                outcome.response.body.close()
        finally:
            if outcome.ticket is not None:
                outcome.ticket.release()

    def sleep(self, seconds: float) -> None:
        sleep(seconds)


def _outcome(reply: Reply[Any]) -> Outcome:
    outcome = Outcome(reply.status, response=reply)
    if reply.status >= 409:  # only a refusal says when to come back; a redirect's Retry-After is the client's business
        outcome.retry_after = retry_after(reply.headers)
    return outcome


_made: dict[str, Transports] = {}


def transports(client: ModuleType) -> Transports:
    """The transport classes for `client` (httpx or httpx2), made at the first call. Raises TypeError for another."""
    if not hasattr(client, "AsyncBaseTransport"):
        raise TypeError(f"a transport was asked for {client!r}; expected the module httpx or httpx2")
    made = _made.get(client.__name__)
    if made is None:
        made = _made[client.__name__] = Transports(_sync_class(client), _async_class(client))
    return made


def _respond(bodies: Any, out: Outgoing, outcome: Outcome) -> Any:
    """The client library's response for an outcome."""
    call = out.call
    if outcome.failure is not None:
        raise_failure(outcome, out)
    reply = outcome.response
    if isinstance(reply, LocalReply):
        return _local(out, reply)
    extensions = {"http_version": reply.http_version, "reason_phrase": reply.reason, EXTENSION: call}
    if reply.network_stream is not None:
        extensions["network_stream"] = reply.network_stream
    stream = bodies(reply.body, outcome.ticket, call, out.request)
    return out.client.Response(
        outcome.status, headers=out.response_headers(reply.headers), stream=stream, extensions=extensions
    )


def _may_pass(client: ModuleType, request: Any, plan: Plan) -> None:
    if not plan.passes(request.url.raw_host.decode("ascii"), request.url.scheme):
        unknown_host(request.url.host, plan, client, request)


async def _apass(passthrough: AsyncPassthrough, client: ModuleType, request: Any, plan: Plan) -> Any:
    """Send a request for a host the mesh doesn't know past it, if it lets us."""
    _may_pass(client, request, plan)
    try:
        return await passthrough.send(request)
    except client.ConnectError as error:
        error.add_note(_past_the_mesh(request, plan))
        raise


def _pass(passthrough: Passthrough, client: ModuleType, request: Any, plan: Plan) -> Any:
    """Send a request for a host the mesh doesn't know past it, if it lets us."""
    _may_pass(client, request, plan)
    try:
        return passthrough.send(request)
    except client.ConnectError as error:
        error.add_note(_past_the_mesh(request, plan))
        raise


def _past_the_mesh(request: Any, plan: Plan) -> str:
    host = request.url.host
    return (
        f"meshlib: the mesh doesn't know {host!r} (configuration {plan.version}), so the call went past it; "
        f"mesh.explain and `meshlib explain {request.url.scheme}://{host}/` name the hosts it knows, "
        "and mesh.status() what is wrong with the registry"
    )


def _foreign(request: Any, client: ModuleType) -> TypeError:
    other = type(request).__module__.partition(".")[0]
    return TypeError(f"a transport for {client.__name__} was given to a client of {other}: ask for one of {other}")


def _local(out: Outgoing, reply: LocalReply) -> Any:
    parts = local_reply(reply, out)
    extensions = {EXTENSION: out.call}
    # A stream, not content: that would leave `response.elapsed` unset for ever.
    stream = out.client.ByteStream(parts.content)
    return out.client.Response(parts.status, headers=parts.headers, stream=stream, extensions=extensions)


def _async_class(client: ModuleType) -> type[Any]:
    bodies = body_classes(client).asynchronous

    class AsyncMeshTransport(client.AsyncBaseTransport):  # type: ignore[misc, name-defined]  # a class made at run time
        """An async transport whose calls live in the mesh."""

        def __init__(self, mesh: MeshView, options: Options) -> None:
            self._mesh = mesh
            self._tls = Tls(client, options.verify, http2=options.http2, trust_env=options.trust_env)
            self._channels = AsyncChannels(options, self._tls, mesh)
            self._passthrough = AsyncPassthrough(client, options)

        async def handle_async_request(self, request: Any) -> Any:
            if not isinstance(request, client.Request):
                raise _foreign(request, client)
            plan = self._mesh.plan or await self._mesh.aready()
            out = outgoing(plan, request, monotonic(), client, AsyncStream)
            if out is None and (name := plan.unasked(request.url.raw_host.decode("ascii"))):
                plan = await self._mesh.alook_up(name)
                out = outgoing(plan, request, monotonic(), client, AsyncStream)
            if out is None:
                return await _apass(self._passthrough, client, request, plan)
            if out.local is not None:
                return _local(out, out.local)
            if out.scheme == "https" and not self._tls.built:
                await anyio.to_thread.run_sync(self._tls.context)
            channels = self._channels.at(plan)
            flow = call_flow(out.route, out.call, monotonic, random)
            outcome = await adrive(flow, AsyncExchange(channels, out))
            return _respond(bodies, out, outcome)

        def let_go(self) -> None:
            """Close the connections into the mesh, from any thread; the transport may be used again."""
            self._channels.close()

        async def aclose(self) -> None:
            self.let_go()
            await self._passthrough.aclose()

    return AsyncMeshTransport


def _sync_class(client: ModuleType) -> type[Any]:
    bodies = body_classes(client).sync

    class MeshTransport(client.BaseTransport):  # type: ignore[misc, name-defined]  # a class made at run time
        """A sync transport whose calls live in the mesh. Thread-safe."""

        def __init__(self, mesh: MeshView, options: Options) -> None:
            self._mesh = mesh
            tls = Tls(client, options.verify, http2=options.http2, trust_env=options.trust_env)
            self._channels = SyncChannels(options, tls, mesh)
            self._passthrough = Passthrough(client, options)

        def handle_request(self, request: Any) -> Any:
            if not isinstance(request, client.Request):
                raise _foreign(request, client)
            plan = self._mesh.plan or self._mesh.ready()
            out = outgoing(plan, request, monotonic(), client, SyncStream)
            if out is None and (name := plan.unasked(request.url.raw_host.decode("ascii"))):
                plan = self._mesh.look_up(name)
                out = outgoing(plan, request, monotonic(), client, SyncStream)
            if out is None:
                return _pass(self._passthrough, client, request, plan)
            if out.local is not None:
                return _local(out, out.local)
            channels = self._channels.at(plan)
            flow = call_flow(out.route, out.call, monotonic, random)
            outcome = drive(flow, SyncExchange(channels, out))
            return _respond(bodies, out, outcome)

        def close(self) -> None:
            self._channels.close()
            self._passthrough.close()

    return MeshTransport
