"""What the middlewares let through, tell the application, and keep from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from meshlib import ASGIMiddleware, Mesh, WSGIMiddleware
from meshlib.identity.handshakes import HANDSHAKEN
from meshlib.identity.incoming import ServerContext
from meshlib.inbound.admit import Peer
from meshlib.inbound.draining import Draining
from meshlib.inbound.gate import Gate
from meshlib.inbound.presence import Presence
from meshlib.plan.inbound import Inbound
from meshlib.plan.plan import Plan
from meshlib.registries.memory import MemoryRegistry
from meshlib.resources import Intention, Intentions, Source, load
from tests.support.authority import Authority
from tests.unit.identity.hands import CALLER, US, HandIdentity, Wire, client_context, material

XFCC = "x-forwarded-client-cert"
OTHER = "spiffe://mesh.test/ns/default/dc/dc1/svc/other"
ONLY_FRONT = Intentions((Intention("front", "allow"), Intention("*", "deny")))


def plan(inbound: Inbound) -> Plan:
    return Plan("1", {}, (), {}, inbound=inbound)


class Connection:
    """What uvicorn's request belongs to."""

    def __init__(self, secured: object = None, address: str = "192.0.2.7") -> None:
        self.transport = self
        self._info = {"ssl_object": secured, "peername": (address, 50000)}
        self.sent: list[dict[str, Any]] = []

    def get_extra_info(self, name: str) -> object:
        return self._info[name]

    async def receive(self) -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


class Place:
    """A mesh with an identity, and an application behind its middleware."""

    def __init__(self, mesh: Mesh) -> None:
        self.root = Authority()
        self.mesh = mesh
        mesh.settings = mesh.settings._replace(identity="files:///run/identity", trusted_hops=(OTHER, "10.0.0.0/8"))
        mesh.identity = HandIdentity(material(self.root.issue(US), self.root))
        mesh.plan = plan(Inbound())
        self.called: list[dict[str, Any]] = []
        self.environs: list[dict[str, Any]] = []
        self.asgi = ASGIMiddleware(self._app, mesh)
        self.wsgi = WSGIMiddleware(self._wsgi_app, mesh)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.called.append(scope)

    def _wsgi_app(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.environs.append(environ)
        return []

    def secured(self, uri: str) -> ssl.SSLObject:
        """A server's end of a connection from `uri`."""
        assert self.mesh.identity is not None
        wire = Wire(ServerContext(self.mesh.identity, Inbound))
        wire.handshake(client_context(self.root, self.root.issue(uri)))
        return wire.server  # type: ignore[return-value]

    def request(
        self, connection: Connection, receive: Any = None, kind: str = "http", **scope: Any
    ) -> list[dict[str, Any]]:
        """Serve one; what was sent."""
        request = {
            "type": kind,
            "method": "GET",
            "path": "/seen",
            "scheme": "https" if kind == "http" else "wss",
            "headers": [],
            "client": ("192.0.2.7", 50000),
            "server": ("127.0.0.1", 8080),
            **scope,
        }
        anyio.run(self.asgi, request, receive or connection.receive, connection.send)
        return connection.sent


@pytest.fixture
def place(mesh: Mesh) -> Place:
    return Place(mesh)


@contextlib.contextmanager
def handshaken(link: Any) -> Iterator[None]:
    """In the context of a connection's handshake."""
    token = HANDSHAKEN.set(link)
    yield
    HANDSHAKEN.reset(token)


def forwarded(uri: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"web"), (XFCC.encode(), f"URI={uri}".encode())]


def test_the_application_hears_who_calls(place: Place) -> None:
    place.request(Connection(place.secured(CALLER)))
    place.request(Connection())
    assert [scope["meshlib.peer"] for scope in place.called] == [CALLER, None]
    assert [scope["scheme"] for scope in place.called] == ["https", "http"]


def test_a_proxys_word_about_the_scheme_stays(place: Place) -> None:
    place.request(Connection(), headers=[(b"x-forwarded-proto", b"https")])
    assert place.called[0]["scheme"] == "https"


def test_a_denied_request_never_reaches_the_application(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.mesh.plan = plan(Inbound(intentions=ONLY_FRONT))
    start, body = place.request(Connection(place.secured(OTHER)), path="/a\r\nforged line")
    assert place.called == []
    assert start["status"] == json.loads(body["body"])["status"] == 403
    assert OTHER in caplog.text
    assert "\\r\\n" in caplog.text
    assert "\r\n" not in caplog.messages[0]


def test_a_new_intention_stops_the_next_request_on_an_open_connection(place: Place) -> None:
    connection = Connection(place.secured(OTHER))
    assert place.request(connection) == []
    place.mesh.plan = plan(Inbound(intentions=ONLY_FRONT))
    assert place.request(connection)[0]["status"] == 403
    place.mesh.plan = plan(Inbound())
    place.request(connection)
    assert len(place.called) == 2


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
def test_a_denied_websocket_is_closed(extensions: dict[str, Any], place: Place) -> None:
    place.mesh.plan = plan(Inbound("STRICT"))
    sent = place.request(Connection(), kind="websocket", extensions=extensions)
    assert place.called == []
    if extensions:
        assert sent[0]["status"] == 403
    else:
        assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_port_has_its_own_mode(place: Place) -> None:
    place.mesh.plan = plan(Inbound("STRICT", {9000: "PERMISSIVE"}))
    assert place.request(Connection(), server=("127.0.0.1", 9000)) == []
    assert place.request(Connection(), server=("127.0.0.1", 8080))[0]["status"] == 403


def test_a_forged_header_is_kept_from_the_application(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.request(Connection(), headers=forwarded(CALLER))
    (scope,) = place.called
    assert scope["meshlib.peer"] is None
    assert scope["headers"] == [(b"host", b"web")]
    assert "doesn't count" in caplog.text


@pytest.mark.parametrize("hop", [False, True])
@pytest.mark.parametrize("name", ["X_Forwarded_Client_Cert", "x_forwarded-client_cert"])
def test_a_header_that_is_the_same_to_cgi_is_kept_from_the_application(name: str, hop: bool, place: Place) -> None:
    place.mesh.plan = plan(Inbound(intentions=Intentions(default_allow=True)))
    headers = [*(forwarded(OTHER) if hop else ()), (name.encode(), f"URI={CALLER}".encode())]
    place.request(Connection(address="10.1.1.1" if hop else "192.0.2.7"), headers=headers)
    (scope,) = place.called
    assert scope["meshlib.peer"] is None
    assert scope["headers"] == (forwarded(OTHER) if hop else [])


def test_a_forged_header_is_known_in_any_case(place: Place) -> None:
    headers = [(b"X-Forwarded-Client-Cert", f"URI={CALLER}".encode())]
    place.request(Connection(), headers=headers)
    assert place.called[0]["headers"] == []
    place.mesh.plan = plan(Inbound(intentions=ONLY_FRONT))
    place.request(Connection(address="10.1.1.1"), headers=headers)
    assert place.called[1]["meshlib.peer"] == CALLER


def test_a_forged_header_opens_no_door_and_the_log_says_so(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.mesh.plan = plan(Inbound(intentions=ONLY_FRONT))
    assert place.request(Connection(), headers=forwarded(CALLER))[0]["status"] == 403
    assert "MESHLIB_TRUSTED_HOPS" in caplog.text


@pytest.mark.parametrize("trusted", ["identity", "address"])
def test_a_trusted_hop_speaks_for_its_caller(trusted: str, place: Place) -> None:
    place.mesh.plan = plan(Inbound(intentions=ONLY_FRONT))
    hop = Connection(place.secured(OTHER)) if trusted == "identity" else Connection(address="10.1.1.1")
    place.request(hop, headers=forwarded(CALLER))
    (scope,) = place.called
    assert scope["meshlib.peer"] == CALLER
    assert scope["headers"] == forwarded(CALLER)
    assert place.request(hop, headers=forwarded(OTHER))[0]["status"] == 403


def test_the_address_of_a_hop_is_the_connections_own_and_no_proxys_word(place: Place) -> None:
    place.request(Connection(), headers=forwarded(CALLER), client=("10.1.1.1", 1))
    assert place.called[0]["meshlib.peer"] is None


LEAF = "the leaf"
TOLD: dict[str, tuple[dict[str, Any], str | None]] = {
    "verified": ({"client_cert_chain": [LEAF]}, CALLER),
    "without an error": ({"client_cert_chain": [LEAF], "client_cert_error": None}, CALLER),
    "with an error": ({"client_cert_chain": [LEAF], "client_cert_error": "expired"}, None),
    "an empty chain": ({"client_cert_chain": []}, None),
    "no chain": ({"client_cert_chain": None}, None),
    "rubbish": ({"client_cert_chain": ["no certificate"]}, None),
    "a name only": ({"client_cert_name": CALLER}, None),
}


@pytest.mark.parametrize("case", TOLD)
def test_the_tls_extension_is_believed_where_it_is_verified(case: str, place: Place) -> None:
    told, peer = TOLD[case]
    if told.get("client_cert_chain") == [LEAF]:
        told = {**told, "client_cert_chain": [place.root.issue(CALLER).certificates.decode()]}

    async def receive() -> None:
        """A server's of its own kind, or one that another middleware wrapped."""

    place.request(Connection(), receive, extensions={"tls": told})
    assert place.called[0]["meshlib.peer"] == peer
    assert place.called[0]["scheme"] == "https"


class Foreign:
    """A connection whose context the server made itself."""

    def __init__(self, *uris: str) -> None:
        self._uris = uris
        self.asked = 0

    def getpeercert(self) -> dict[str, Any]:
        self.asked += 1
        return {"subjectAltName": tuple(("URI", uri) for uri in self._uris)}


@pytest.mark.parametrize(
    ("uris", "peer"),
    [((CALLER,), CALLER), ((CALLER, OTHER), None), (("spiffe://other.test/x",), None), ((), None)],
)
def test_a_certificate_that_the_server_verified_counts(uris: tuple[str, ...], peer: str | None, place: Place) -> None:
    secured = Foreign(*uris)
    connection = Connection(secured)
    place.request(connection)
    place.request(connection)
    assert [scope["meshlib.peer"] for scope in place.called] == [peer, peer]
    assert secured.asked == 1


def test_hypercorn_is_asked_by_the_context_its_tasks_begin_in(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypercorn", types.ModuleType("hypercorn"))
    queue: asyncio.Queue[Any] = asyncio.Queue()
    with handshaken(place.secured(CALLER)):
        place.request(Connection(), queue.get)
    with handshaken(None):
        place.request(Connection(), queue.get, scheme="http")
    assert [scope["meshlib.peer"] for scope in place.called] == [CALLER, None]


def test_a_context_is_no_proof_on_other_servers(place: Place) -> None:
    async def wrapped() -> None:
        """Another middleware's."""

    with handshaken(place.secured(CALLER)):
        place.request(Connection(), wrapped)
    assert place.called[0]["meshlib.peer"] is None


def test_a_server_that_shows_nothing_is_named_once_and_never_guessed(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async def wrapped() -> None:
        """Another middleware's."""

    for _ in range(2):
        place.request(Connection(), wrapped)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "outermost" in errors[0].message
    assert [scope["meshlib.peer"] for scope in place.called] == [None, None]
    place.mesh.plan = plan(Inbound("STRICT"))
    assert place.request(Connection(), wrapped)[0]["status"] == 403


@pytest.mark.parametrize("known", [True, False])
def test_an_address_that_the_server_may_have_from_a_header_makes_no_trusted_hop(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", types.ModuleType("uvicorn"))
    gate = Gate(Mesh("memory:", trusted_hops="10.0.0.0/8"))
    headers = [(b"x-forwarded-for", b"10.9.9.9"), *forwarded(CALLER)]
    visitor = gate.visitor(Peer(None, False, known), "10.9.9.9", headers, b"\n".join(name for name, _ in headers))
    assert (visitor.address, visitor.believed) == (("10.9.9.9", True) if known else (None, False))
    assert visitor.remote == "10.9.9.9"


def test_granian_is_named_at_the_start(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "granian", types.ModuleType("granian"))
    ASGIMiddleware(place._app, place.mesh)
    assert "granian" in caplog.text


def test_a_mesh_without_an_identity_leaves_requests_alone(mesh: Mesh) -> None:
    mesh.plan = plan(Inbound())
    called: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope)

    connection = Connection()
    request = {"type": "http", "headers": forwarded(CALLER)}
    anyio.run(ASGIMiddleware(app, mesh), request, connection.receive, connection.send)
    assert called[0] is request


@pytest.mark.parametrize("comes", [True, False])
def test_nobody_is_let_in_before_there_is_a_configuration(
    comes: bool, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mesh.plan = None

    async def aready() -> None:
        if comes:
            place.mesh.plan = plan(Inbound())

    monkeypatch.setattr(place.mesh, "aready", aready)
    sent = place.request(Connection(place.secured(CALLER)))
    assert len(place.called) == comes
    if not comes:
        assert sent[0]["status"] == 503


@pytest.mark.parametrize(("says", "called"), [(Inbound("STRICT"), 0), (Inbound(), 1), (None, 0)])
def test_a_service_without_an_identity_serves_nobody_without_a_configuration(
    says: Inbound | None, called: int, mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ready() -> None:
        mesh.plan = None if says is None else plan(says)

    async def aready() -> None:
        ready()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        reached.append(environ)
        return []

    mesh.settings = mesh.settings._replace(service="reviews")
    monkeypatch.setattr(mesh, "ready", ready)
    monkeypatch.setattr(mesh, "aready", aready)
    monkeypatch.setattr(Presence, "watch", lambda *_, **__: None)
    monkeypatch.setattr(Draining, "install", lambda _: None)
    connection = Connection()
    for middleware in (ASGIMiddleware(app, mesh), WSGIMiddleware(wsgi, mesh)):
        reached: list[Any] = []
        mesh.plan = None
        if isinstance(middleware, ASGIMiddleware):
            assert middleware._presence is not None
            middleware._presence.begun = True
            request = {"type": "http", "path": "/", "headers": [], "scheme": "http"}
            anyio.run(middleware, request, connection.receive, connection.send)
        else:
            list(middleware(environ(**{"gunicorn.socket": object()}), lambda *_: None))
        assert len(reached) == called


def test_a_service_that_is_the_first_in_its_registry_serves(tmp_path: Path) -> None:
    reached: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    with Mesh(f"sqlite://{tmp_path}/none.db", service="reviews", state_dir=tmp_path / "state") as mesh:
        middleware = ASGIMiddleware(app, mesh)
        assert middleware._presence is not None
        middleware._presence.begun = True
        connection = Connection()
        request = {"type": "http", "path": "/", "headers": [], "scheme": "http"}
        anyio.run(middleware, request, connection.receive, connection.send)
        assert (len(reached), mesh.plan) == (1, None)


@pytest.mark.parametrize("registry", ["file://{0}/none", "sqlite://{0}"])
def test_a_service_whose_registry_is_away_serves_nobody(registry: str, tmp_path: Path) -> None:
    reached: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        reached.append(environ)
        return []

    url = registry.format(tmp_path)
    with Mesh(url, service="reviews", state_dir=tmp_path / "state") as mesh:
        gate = WSGIMiddleware.__new__(WSGIMiddleware)
        gate.app, gate.mesh, gate._gate = app, mesh, Gate(mesh)
        started: list[str] = []
        gate(environ(**{"gunicorn.socket": object()}), lambda status, headers: started.append(status))
    assert (started, reached) == (["503 Service Unavailable"], [])


def environ(**more: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/seen",
        "SERVER_PORT": "8080",
        "REMOTE_ADDR": "192.0.2.7",
        "wsgi.url_scheme": "https",
        **more,
    }


def call(place: Place, request: dict[str, Any]) -> tuple[str, bytes]:
    """Serve one; what the middleware answered itself."""
    started: list[str] = []
    body = b"".join(place.wsgi(request, lambda status, headers: started.append(status)))
    return (started or [""])[0], body


def test_a_wsgi_application_hears_who_calls(place: Place) -> None:
    call(place, environ(**{"gunicorn.socket": object()}))
    (seen,) = place.environs
    assert seen["meshlib.peer"] is None
    assert seen["wsgi.url_scheme"] == "http"


def test_a_wsgi_application_never_sees_a_forged_header(place: Place) -> None:
    call(place, environ(**{"gunicorn.socket": object(), "HTTP_X_FORWARDED_CLIENT_CERT": f"URI={CALLER}"}))
    (seen,) = place.environs
    assert seen["meshlib.peer"] is None
    assert "HTTP_X_FORWARDED_CLIENT_CERT" not in seen
    request = environ(REMOTE_ADDR="10.1.1.1", HTTP_X_FORWARDED_CLIENT_CERT=f"URI={CALLER}")
    call(place, {**request, "gunicorn.socket": object()})
    assert place.environs[1]["meshlib.peer"] == CALLER
    assert "HTTP_X_FORWARDED_CLIENT_CERT" in place.environs[1]


def test_a_denied_request_never_reaches_a_wsgi_application(place: Place) -> None:
    place.mesh.plan = plan(Inbound("STRICT", {9000: "PERMISSIVE"}))
    status, body = call(place, environ(**{"gunicorn.socket": object()}))
    assert status == "403 Forbidden"
    assert json.loads(body)["status"] == 403
    assert place.environs == []
    call(place, environ(SERVER_PORT="9000", **{"gunicorn.socket": object()}))
    assert len(place.environs) == 1


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
def test_no_caller_chooses_the_port_whose_mode_holds(family: int, place: Place) -> None:
    place.mesh.plan = plan(Inbound("STRICT", {9000: "PERMISSIVE"}))
    with socket.socket(family) as own:
        request = environ(SERVER_PORT="9000", HTTP_HOST="web:9000", **{"gunicorn.socket": own})
        assert call(place, request)[0] == "403 Forbidden"
    assert place.environs == []


def test_a_wsgi_server_that_shows_nothing_is_named(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    call(place, environ())
    assert "doesn't let meshlib see" in caplog.text
    assert place.environs[0]["meshlib.peer"] is None


@pytest.mark.parametrize("middleware", [ASGIMiddleware, WSGIMiddleware])
@pytest.mark.parametrize(
    ("settings", "planned", "told"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"service": "reviews"}, False, False),
        ({"trusted_hops": "10.0.0.0/8"}, False, False),
    ],
    ids=["neither a name nor a plan", "a plan", "a name", "hops that tell of callers"],
)
def test_the_log_says_where_no_document_is_enforced(
    middleware: Any, settings: dict[str, Any], planned: bool, told: bool, caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Draining, "install", lambda _self: None)
    monkeypatch.setattr(Presence, "watch", lambda *_: None)
    mesh = Mesh("memory:nameless", **settings)
    if planned:
        mesh.plan = plan(Inbound())
    middleware(None, mesh)
    assert ("MESHLIB_SERVICE isn't set" in caplog.text) is told


DENY_ALL = b"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec: {}
"""


def test_a_process_without_a_name_that_knew_of_policies_has_its_children_enforce_them() -> None:
    registry = MemoryRegistry()
    asyncio.run(registry.apply(load([Source("the test", DENY_ALL)]).resources))
    with Mesh(registry) as mesh:
        application = WSGIMiddleware(lambda environ, start: start("200 OK", []) or [], mesh)
        agent = mesh._agent
        assert agent is not None
        try:
            mesh._after_fork()
            told: list[str] = []
            application(environ(**{"gunicorn.socket": object()}), lambda status, headers: told.append(status))
        finally:
            agent.close(2.0)
        assert told == ["403 Forbidden"]
