"""The mesh's side of an ASGI application."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio.to_thread

from meshlib.context import INHERITED, remaining
from meshlib.inbound.admit import given_up
from meshlib.inbound.arrival import inherit, prefer
from meshlib.inbound.bodies import CountedReceive
from meshlib.inbound.bounds import body_bound, too_long
from meshlib.inbound.denials import Denial, Permit
from meshlib.inbound.draining import Draining
from meshlib.inbound.drivers import AsyncPerformers, adrive
from meshlib.inbound.early import EarlyReceive, reads_bodies
from meshlib.inbound.effects import ReadBody
from meshlib.inbound.endings import Ending, parting
from meshlib.inbound.forwarded import looks_forged
from meshlib.inbound.gate import Gate
from meshlib.inbound.heads import Headers, Visitor, asgi_head, for_asgi, lowered
from meshlib.inbound.listening import choose, listening
from meshlib.inbound.peers import asgi_peer
from meshlib.inbound.presence import Presence
from meshlib.inbound.pulse import pulse_here
from meshlib.mesh import Mesh, default_mesh
from meshlib.plan.plan import Plan

__all__ = ["ASGIMiddleware"]

log = logging.getLogger("meshlib.inbound")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

MOST_MIDDLEWARES = 32
"""Between us and the application that are looked through; one may hold itself."""


class ASGIMiddleware:
    """An ASGI application in the mesh.

    Calls made while serving a request inherit its deadline, attempt count and trace headers, and a request whose caller
    has stopped waiting is answered 504. A mesh with a service name registers the process when its server listens, and
    withdraws it half a second before the server hears of SIGTERM or SIGINT.

    What the registry's documents say of requests coming in is enforced on each (`meshlib.inbound.admit` has the order),
    and callers are known by the identity that their certificate was verified for. A mesh with an identity tells it the
    application as `scope["meshlib.peer"]`, a SPIFFE ID or None, and lets an `x-forwarded-client-cert` through from
    trusted hops only.

    Args:
        app: the application.
        mesh: by default the one that MESHLIB_* variables describe, shared by the whole process.

    Raises:
        SettingsError: a MESHLIB_* variable is not allowed.

    Example:
        >>> app.add_middleware(ASGIMiddleware)                                      # doctest: +SKIP
    """

    def __init__(self, app: App, mesh: Mesh | None = None) -> None:
        self.app = app
        self.mesh = mesh or default_mesh()
        self._presence = Presence(self.mesh) if self.mesh.settings.service is not None else None
        self._gate = Gate(self.mesh)
        self._mount = _mount_of(app)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection of the server's."""
        kind = scope["type"]
        presence = self._presence
        if kind == "lifespan" and presence is not None:
            await _Lifespan(self.app, presence).run(scope, receive, send)
            return
        if kind not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        if presence is not None:
            if not presence.begun:
                _register_late(presence, scope)
            if presence.leaving and kind == "http" and scope.get("http_version", "1.1").startswith("1"):
                send = parting(send)
        # The deadline runs from here: waiting to be let in is part of it.
        inherited = inherit(scope["headers"], time.monotonic())
        if inherited is None:
            await _refuse(scope, receive, send, self._gate.expired())
            return
        token = INHERITED.set(inherited)
        try:
            if self._gate.on(self.mesh.plan):
                await self._guarded(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        finally:
            INHERITED.reset(token)

    async def _guarded(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request that has to be let in first."""
        gate = self._gate
        plan = self.mesh.plan
        if plan is None:
            await self.mesh.aready()
            plan = self.mesh.plan
        headers, names = lowered(scope["headers"])
        peer, address = asgi_peer(scope, receive, gate.trust_domain)
        visitor = gate.visitor(peer, address, headers, names)
        arriving = asgi_head(scope, headers, visitor, self._mount)
        pulse = pulse_here() if plan is not None and plan.inbound.load is not None else None
        admission = gate.admission(plan, visitor, arriving, pulse)
        answer: Denial | Permit
        try:
            effect = next(admission)
        except StopIteration as end:  # most requests need no effect
            answer = end.value
        else:
            performing, receive = _reading(gate.async_performers, plan, scope, receive)
            answer = await adrive(admission, effect, performing)
        if remaining() == 0 and type(answer) is Permit:
            answer = given_up(answer, gate.clocks.now())
        if type(answer) is Denial:
            gate.tell(answer, visitor, arriving)
            await _refuse(scope, receive, send, answer)
            return
        assert type(answer) is Permit
        ending: Ending | None = None
        out = send
        if answer.watched:
            ending = Ending(answer, gate.clocks.now, send)
            out = ending.send
        try:
            gate.tell(answer, visitor, arriving)
            if answer.priority:
                prefer(answer.priority)
            seen = _seen(scope, headers, names, visitor, answer, gate.claims)
            most = None if plan is None else body_bound(plan.inbound.bounds, arriving)
            if most is None or scope["type"] != "http":
                await self.app(seen, receive, out)
            else:
                await self._counted(seen, receive, out, most)
        finally:
            if ending is not None:
                ending.end()

    async def _counted(self, scope: MutableMapping[str, Any], receive: Receive, send: Send, most: int) -> None:
        """Serve a request whose body has `most` bytes, or is too long."""

        async def refuse() -> None:
            denial = too_long(most)
            # What is still to come of the body would be taken for the next request's.
            closing = [(b"connection", b"close")] if scope.get("http_version", "1.1").startswith("1") else []
            await _refuse(scope, receive, send, denial._replace(headers=[*denial.headers, *closing]))

        counted = CountedReceive(receive, send, most, refuse)
        try:
            await self.app(scope, counted.receive, counted.send)
        except Exception:
            if not counted.exceeded:
                raise
            log.debug("the application failed for want of the rest of a body that was too long", exc_info=True)


def _mount_of(app: Any) -> str:
    """What an application says it is mounted under, as FastAPI does: to nobody but those who ask it.

    It takes that away from a path that begins with it. Middlewares around it hold it as `app`.
    """
    for _ in range(MOST_MIDDLEWARES):
        mount = getattr(app, "root_path", "")
        if isinstance(mount, str) and mount:
            return mount
        app = getattr(app, "app", None)
    return ""


class _Lifespan:
    """One lifespan of the application, and what the mesh does at its turns."""

    def __init__(self, app: App, presence: Presence) -> None:
        self._app = app
        self._presence = presence
        self._draining = Draining(presence)
        self._inherited = listening()
        self._answered = False

    async def run(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        async def hear() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._end()
            return message

        async def say(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._begin()
            self._answered = True
            await send(message)

        try:
            await self._app(scope, hear, say)
        except Exception:
            self._unanswered()
            raise
        self._unanswered()

    def _unanswered(self) -> None:
        if not self._answered:  # it knows no lifespan; the server goes on without
            self._begin()

    def _begin(self) -> None:
        # A server binds after this, or has bound before its application started.
        self._presence.watch(self._inherited, listening())
        self._draining.install()

    async def _end(self) -> None:
        self._draining.restore()
        await anyio.to_thread.run_sync(self._presence.leave)


def _register_late(presence: Presence, scope: MutableMapping[str, Any]) -> None:
    """At the first request to a server without lifespan."""
    host, port = scope.get("server") or ("", None)
    if port is None:  # a Unix socket
        presence.watch((), listening())
    else:
        address = choose([(host, port)])
        assert address is not None
        presence.register(address)
    Draining(presence).install()


def _reading(
    performing: AsyncPerformers, plan: Plan | None, scope: MutableMapping[str, Any], receive: Receive
) -> tuple[AsyncPerformers, Receive]:
    """What may read a request's body before the application does, and what the application receives by then."""
    if plan is None or scope["type"] != "http" or not reads_bodies(plan.inbound):
        return performing, receive
    early = EarlyReceive(receive)
    return {**performing, ReadBody: early.read}, early.receive


def _seen(
    scope: MutableMapping[str, Any], headers: Headers, names: bytes, visitor: Visitor, permit: Permit, claims: bool
) -> MutableMapping[str, Any]:
    """The scope as the application is to see it.

    Args:
        scope: as it came.
        headers: of it, names in lower case.
        names: all of these in one.
        visitor: who makes the request.
        permit: what it got on the way in.
        claims: whether the mesh knows callers by their identity.
    """
    if not (claims or permit.add or permit.remove or permit.query is not None):
        return scope
    changed = {**scope}
    if claims:
        changed["meshlib.peer"] = None if visitor.caller is None else str(visitor.caller)
        if b"forwarded" in names:
            believed = visitor.believed
            changed["headers"] = headers = [pair for pair in headers if not looks_forged(pair[0], believed=believed)]
        peer = visitor.peer
        if peer.known and not peer.secure and b"x-forwarded-proto" not in names.split():
            # On a port for both, a server takes every connection for TLS.
            changed["scheme"] = {"https": "http", "wss": "ws"}.get(scope["scheme"], scope["scheme"])
    if permit.add or permit.remove:
        changed["headers"] = for_asgi(headers, permit.add, permit.remove)
    if permit.query is not None:
        changed["query_string"] = permit.query
    return changed


async def _refuse(scope: MutableMapping[str, Any], receive: Receive, send: Send, denial: Denial) -> None:
    prefix = "http.response"
    if scope["type"] == "websocket":
        await receive()
        prefix = "websocket.http.response"
        if prefix not in (scope.get("extensions") or {}):
            code = 1008 if denial.status == 403 else 1013  # a policy's violation; try again later
            await send({"type": "websocket.close", "code": code})
            return
    await send({"type": f"{prefix}.start", "status": denial.status, "headers": list(denial.headers)})
    await send({"type": f"{prefix}.body", "body": denial.body})
