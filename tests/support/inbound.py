"""Both middlewares around an application, called as a server calls them, without a network: a case costs about 1 ms.

    side = Side("asgi", documents)              # or "wsgi"; documents as YAML, one text
    reply = side.ask(get("/admin", peer="spiffe://mesh.test/ns/default/sa/web"))
    assert (reply.status, reply.code) == (403, "RBAC")
    assert reply.seen is None                   # the application was never called

`side.mesh.plan` may be set anew between requests (`side.obey(documents)`); what was observed lives on, as it does in a
process. Several requests at one time: `side.aask` on an event loop, or `side.ask` in threads.
"""

from __future__ import annotations

import asyncio
import io
import math
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from meshlib import ASGIMiddleware, Mesh, WSGIMiddleware
from meshlib.identity.handshakes import IncomingLink, IncomingSocket
from meshlib.identity.spiffe import SpiffeId, parse
from meshlib.inbound.gate import Gate
from meshlib.plan.inbound import Inbound, inbound_of
from meshlib.plan.plan import Plan
from meshlib.plan.snapshot import Snapshot
from meshlib.resources import Intentions, Source, load
from meshlib.state.inbound import InboundState

__all__ = ["SERVICE", "TRUST_DOMAIN", "Kind", "Reply", "Request", "Seen", "Side", "get", "inbound_from"]

TRUST_DOMAIN = "mesh.test"
SERVICE = "reviews"
"""The service that is called, in the namespace `default`; it wears the labels `app: reviews` and `version: v1`."""

Kind = Literal["asgi", "wsgi"]


class Request(NamedTuple):
    """One request.

    Attributes:
        method: as it is written.
        target: path and query, as on the wire.
        headers: besides `host`, which is `reviews` unless it is among them.
        body: of the request.
        chunked: whether it comes in parts whose length isn't said before.
        peer: SPIFFE ID of the caller's certificate, "" without TLS.
        address: the caller's.
        port: of ours that it comes to.
    """

    method: str = "GET"
    target: str = "/"
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    chunked: bool = False
    peer: str = ""
    address: str = "192.0.2.7"
    port: int = 8080

    @property
    def every_header(self) -> list[tuple[str, str]]:
        """With those a client adds."""
        found = [(name.lower(), value) for name, value in self.headers]
        if "host" not in dict(found):
            found.insert(0, ("host", SERVICE))
        if self.body and not self.chunked:
            found.append(("content-length", str(len(self.body))))
        return found


class Seen(NamedTuple):
    """What the application got; of headers that came several times the values joined by commas."""

    method: str
    path: str
    headers: Mapping[str, str]
    peer: str | None
    body: bytes


class Reply(NamedTuple):
    """What the caller got.

    Attributes:
        code: of the reason for a denial, "" for none.
        seen: what the application got; None: it was never called.
    """

    status: int
    code: str
    headers: Mapping[str, str]
    body: bytes
    seen: Seen | None


def get(target: str = "/", *headers: tuple[str, str], **more: Any) -> Request:
    """A request; see `Request` for the rest."""
    return Request(target=target, headers=headers, **more)


def inbound_from(
    documents: str,
    *,
    intentions: Intentions | None = None,
    state: InboundState | None = None,
    namespace: str = "default",
) -> Inbound:
    """What documents say to the service. Documents with problems fail the test."""
    loaded = load([Source("the test", documents.encode())])
    assert not loaded.problems, [problem.message for problem in loaded.problems]
    snapshot = Snapshot((), tuple(loaded.resources), intentions=intentions)
    return inbound_of(snapshot, namespace, SERVICE, {"version": "v1"}, state or InboundState())


class Side:
    """One of the middlewares, and an application behind it that answers 200.

    Args:
        kind: which.
        documents: YAML.
        settings: of the mesh: `trusted_hops`.
        identity: whether this service has one, and so sees those of callers.
        answer: makes the application's body from what it saw.

    Attributes:
        mesh: its plan is what the documents say.
        gate: of the middleware, with its clocks and performers.
        state: what was observed.
        reply_headers: of the application's answers.
    """

    def __init__(
        self,
        kind: Kind,
        documents: str = "",
        *,
        identity: bool = True,
        intentions: Intentions | None = None,
        answer: Callable[[Seen], bytes] = lambda seen: b"hello",
        **settings: Any,
    ) -> None:
        self.kind = kind
        self.state = InboundState()
        self.mesh = Mesh("memory:")
        self.answer = answer
        self.reply_headers = [("Content-Type", "text/plain")]
        self.mesh.settings = self.mesh.settings._replace(identity="files:///run/id" if identity else "none", **settings)
        if identity:
            ours = SpiffeId(TRUST_DOMAIN, "/ns/default/sa/reviews")
            material = SimpleNamespace(id=ours, not_after=math.inf)
            self.mesh.identity = SimpleNamespace(material=material, trouble=lambda now: "")  # type: ignore[assignment]
        self.asgi = ASGIMiddleware(self._asgi_app, self.mesh)
        self.wsgi = WSGIMiddleware(self._wsgi_app, self.mesh)
        self.obey(documents, intentions)

    @property
    def gate(self) -> Gate:
        """Of the middleware that is asked."""
        return self.asgi._gate if self.kind == "asgi" else self.wsgi._gate

    def obey(self, documents: str, intentions: Intentions | None = None) -> None:
        """Take these documents for those in force."""
        inbound = inbound_from(documents, intentions=intentions, state=self.state)
        self.mesh.plan = Plan("1", {}, (), {}, inbound=inbound)

    def ask(self, request: Request) -> Reply:
        """Make a request, and see what comes of it."""
        return asyncio.run(self.aask(request)) if self.kind == "asgi" else self._ask_wsgi(request)

    async def aask(self, request: Request) -> Reply:
        """`ask` of the ASGI middleware on the loop that runs."""
        path, _, query = request.target.partition("?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": request.method,
            "path": _decoded(path),
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "scheme": "https" if request.peer else "http",
            "headers": [(name.encode("latin-1"), value.encode("utf-8")) for name, value in request.every_header],
            "client": (request.address, 50000),
            "server": ("127.0.0.1", request.port),
        }
        connection = _Connection(request)
        seen: list[Seen] = []
        token = SEEN.set(seen)
        try:
            await self.asgi(scope, connection.receive, connection.send)
        finally:
            SEEN.reset(token)
        start, *parts = connection.sent
        body = b"".join(part.get("body", b"") for part in parts)
        return _reply(
            start["status"], [(k.decode("latin-1"), v.decode("latin-1")) for k, v in start["headers"]], body, seen
        )

    async def _asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = _joined((name.decode("latin-1"), value.decode("utf-8")) for name, value in scope["headers"])
        seen = Seen(scope["method"], scope["path"], headers, scope.get("meshlib.peer"), body)
        SEEN.get().append(seen)
        answered = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.reply_headers]
        await send({"type": "http.response.start", "status": 200, "headers": answered})
        await send({"type": "http.response.body", "body": self.answer(seen)})

    def _ask_wsgi(self, request: Request) -> Reply:
        path, _, query = request.target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": _decoded(path).encode("utf-8").decode("latin-1"),
            "RAW_URI": request.target,
            "QUERY_STRING": query,
            "REMOTE_ADDR": request.address,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(request.port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "https" if request.peer else "http",
            "wsgi.input": io.BytesIO(request.body),
            "wsgi.input_terminated": True,
            "gunicorn.socket": _wsgi_socket(request.peer),
        }
        for name, value in _joined(request.every_header).items():
            bare = name.upper().replace("-", "_")
            variable = bare if bare in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{bare}"
            environ[variable] = value.encode("utf-8").decode("latin-1")
        if request.chunked:
            environ["HTTP_TRANSFER_ENCODING"] = "chunked"
        started: list[tuple[str, list[tuple[str, str]]]] = []
        seen: list[Seen] = []
        token = SEEN.set(seen)
        try:
            body = self.wsgi(environ, lambda status, headers, exc_info=None: started.append((status, headers)))
            whole = b"".join(body)
            if (close := getattr(body, "close", None)) is not None:
                close()
        finally:
            SEEN.reset(token)
        status, headers = started[-1]
        return _reply(int(status[:3]), headers, whole, seen)

    def _wsgi_app(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        headers = {
            name.removeprefix("HTTP_").lower().replace("_", "-"): value.encode("latin-1").decode("utf-8")
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in {"CONTENT_TYPE", "CONTENT_LENGTH"}
        }
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        body = environ["wsgi.input"].read()
        seen = Seen(environ["REQUEST_METHOD"], path, headers, environ.get("meshlib.peer"), body)
        SEEN.get().append(seen)
        start_response("200 OK", list(self.reply_headers))
        return [self.answer(seen)]


SEEN: ContextVar[list[Seen]] = ContextVar("seen")
"""Of the request that is being asked, where its application notes what it got."""


class _Connection:
    """What uvicorn's request belongs to."""

    def __init__(self, request: Request) -> None:
        self.transport = self
        self.sent: list[dict[str, Any]] = []
        self._told = {"ssl_object": _link(request.peer), "peername": (request.address, 50000)}
        half = len(request.body) // 2
        self._parts = [request.body[:half], request.body[half:]] if request.chunked else [request.body]

    def get_extra_info(self, name: str) -> object:
        return self._told.get(name)

    async def receive(self) -> dict[str, Any]:
        if not self._parts:
            return {"type": "http.disconnect"}
        part = self._parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self._parts)}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def _link(peer: str) -> IncomingLink | None:
    if not peer:
        return None
    link = IncomingLink(lambda: None, ssl.MemoryBIO(), ssl.MemoryBIO())  # type: ignore[arg-type,return-value]
    link.peer, link.secure = parse(peer), True
    return link


def _wsgi_socket(peer: str) -> object:
    if not peer:
        return object()
    sock = IncomingSocket.__new__(IncomingSocket)  # of no connection: only asked who is there
    sock.peer = parse(peer)
    return sock


def _decoded(path: str) -> str:
    return unquote(path, errors="replace")


def _joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _reply(status: int, headers: Sequence[tuple[str, str]], body: bytes, seen: Sequence[Seen]) -> Reply:
    joined = _joined((name.lower(), value) for name, value in headers)
    assert len(seen) <= 1
    return Reply(status, joined.get("x-meshlib-reason", ""), joined, body, seen[0] if seen else None)
