"""Who is refused, on both sides of a connection: with a reason, and without a byte of a request delivered."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import meshlib
from meshlib.registries.base import Instance
from tests.integration.workers.realm import Realm, address, ask, put_in
from tests.support import eventually
from tests.support.authority import SERVER, Authority, Issued, self_signed
from tests.support.servers import Fleet
from tests.unit.identity.hands import client_context
from tests.wire.secured import Endpoint, server_context
from tests.wire.server import OK, Peer
from tests.wire.server import Server as Listener

REVIEWS, RATINGS = Realm.id("reviews"), Realm.id("ratings")
HANDSHAKE = 2.0  # seconds the servers here give a handshake

Get = Callable[[meshlib.Mesh, str], Any]


def sync_get(mesh: meshlib.Mesh, url: str) -> Any:
    with meshlib.Client(mesh=mesh) as client:
        return client.get(url)


def async_get(mesh: meshlib.Mesh, url: str) -> Any:
    async def run() -> Any:
        async with meshlib.AsyncClient(mesh=mesh) as client:
            return await client.get(url)

    return asyncio.run(run())


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    started = Fleet(tmp_path, Path(__file__).parent / "apps")
    yield started
    started.end()


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return Realm(tmp_path / "realm")


# The caller refuses


class Rogue:
    """A server that shows what the test gives it, takes any caller and notes what it hears."""

    def __init__(self, realm: Realm, issued: Issued) -> None:
        self.endpoint = Endpoint(server_context(issued, root=realm.issuer, verify_mode=ssl.CERT_NONE))
        self.listener = Listener(self.endpoint)

    @property
    def heard(self) -> bytes:
        return b"".join(self.endpoint.heard)

    def instance(self, identity: str = REVIEWS) -> Instance:
        """What stands in the registry of it: it is `reviews`, and says that it has this identity."""
        return Instance("reviews", "127.0.0.1", self.listener.port, identity=identity)


WRONG_SERVERS: dict[str, tuple[Callable[[Realm], Issued], str]] = {
    "another service": (lambda realm: realm.issuer.issue(RATINGS), f"is for {RATINGS}, expected {REVIEWS}"),
    "another trust domain": (
        lambda realm: realm.issuer.issue(REVIEWS.replace("mesh.test", "mesh.example")),
        f"is for spiffe://mesh.example/ns/default/sa/reviews, expected {REVIEWS}",
    ),
    "another trust domain with a root of its own": (
        lambda _: Authority("first").issue(REVIEWS.replace("mesh.test", "mesh.example")),
        "unable to get local issuer certificate",
    ),
    "expired": (lambda realm: realm.issuer.issue(REVIEWS, ends=-1), "certificate has expired"),
    "not yet valid": (lambda realm: realm.issuer.issue(REVIEWS, begins=3600, ends=7200), "not yet valid"),
    "self-signed": (lambda _: self_signed(REVIEWS), "self-signed certificate"),
    "a name that begins like the right one": (
        lambda realm: realm.issuer.issue(REVIEWS + "-canary"),
        f"is for {REVIEWS}-canary, expected {REVIEWS}",
    ),
    "a CA's": (lambda realm: realm.issuer.issue(REVIEWS, ca=True), "is a CA's (CA:TRUE)"),
    "two URI SANs": (lambda realm: realm.issuer.issue(REVIEWS, RATINGS), "2 URI SANs, where only one is allowed"),
    "a wildcard": (lambda realm: realm.issuer.issue(Realm.id("*")), f"is for {Realm.id('*')}, expected {REVIEWS}"),
}


@pytest.mark.parametrize("get", [sync_get, async_get])
@pytest.mark.parametrize("wrong", WRONG_SERVERS)
def test_a_caller_refuses_a_server_with_a_reason(wrong: str, get: Get, fleet: Fleet, realm: Realm) -> None:
    issue, reason = WRONG_SERVERS[wrong]
    rogue = Rogue(realm, issue(realm))
    put_in(fleet, "", rogue.instance())
    with rogue.listener, realm.mesh(fleet, "web") as mesh, pytest.raises(meshlib.ConnectFailed) as failure:
        get(mesh, "http://reviews/secret")
    assert reason in str(failure.value)
    assert f"127.0.0.1:{rogue.listener.port}" in str(failure.value)
    assert rogue.listener.connections >= 1
    assert rogue.heard == b""


@pytest.mark.parametrize("get", [sync_get, async_get])
def test_the_right_server_is_spoken_to(get: Get, fleet: Fleet, realm: Realm) -> None:
    """What the refusals above are to be compared with: the recorder does hear."""
    rogue = Rogue(realm, realm.issuer.issue(REVIEWS))
    put_in(fleet, "", rogue.instance())
    with rogue.listener, realm.mesh(fleet, "web") as mesh:
        assert get(mesh, "http://reviews/secret").status_code == 200
    assert b"GET /secret" in rogue.heard


NAMED = f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews}}
spec:
  host: reviews
  trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL, subjectAltNames: ["{REVIEWS}"]}}}}
"""


def test_who_says_openly_that_it_is_another_is_refused_by_the_name_in_the_document(fleet: Fleet, realm: Realm) -> None:
    """`ratings` has written itself into the registry as `reviews`, with its own identity."""
    rogue = Rogue(realm, realm.issuer.issue(RATINGS))
    put_in(fleet, NAMED, rogue.instance(RATINGS))
    with rogue.listener, realm.mesh(fleet, "web") as mesh, pytest.raises(meshlib.ConnectFailed, match=RATINGS):
        sync_get(mesh, "http://reviews/secret")
    assert rogue.listener.connections >= 1
    assert rogue.heard == b""


UNNAMED = NAMED.replace(f', subjectAltNames: ["{REVIEWS}"]', "")


@pytest.mark.parametrize("get", [sync_get, async_get])
@pytest.mark.parametrize(
    ("document", "said"), [(NAMED, "it doesn't speak TLS"), (UNNAMED, "no identity is known for this endpoint")]
)
def test_who_leaves_its_identity_out_gets_nothing_in_the_clear_where_a_document_says_mtls(
    document: str, said: str, get: Get, fleet: Fleet, realm: Realm
) -> None:
    heard: list[bytes] = []

    def script(peer: Peer) -> None:
        heard.append(peer.sock.recv(65536))
        peer.send(OK)

    listener = Listener(script)
    put_in(fleet, document, Instance("reviews", "127.0.0.1", listener.port))
    with listener, realm.mesh(fleet, "web") as mesh, pytest.raises(meshlib.ConnectFailed, match=said):
        get(mesh, "http://reviews/secret")
    assert all(came[:1] in {b"", b"\x16"} for came in heard), "something else than the beginning of TLS was sent"


def test_beside_the_right_server_an_intruder_gets_no_byte_and_costs_no_call(fleet: Fleet, realm: Realm) -> None:
    good, rogue = Rogue(realm, realm.issuer.issue(REVIEWS)), Rogue(realm, realm.issuer.issue(RATINGS))
    put_in(fleet, "", good.instance(), rogue.instance())
    with good.listener, rogue.listener, realm.mesh(fleet, "web") as mesh, meshlib.Client(mesh=mesh) as client:
        # A POST, which is sent once and no more: that nothing was sent to the intruder is what lets it go elsewhere.
        assert [client.post("http://reviews/order", content=b"secret").status_code for _ in range(40)] == [200] * 40
        assert rogue.listener.connections >= 1
    assert rogue.heard == b""


@pytest.mark.parametrize("get", [sync_get, async_get])
@pytest.mark.parametrize(("ends", "said"), [(-1.0, "has expired"), (None, "holds no certificate")])
def test_without_a_good_certificate_of_its_own_a_caller_sends_nothing_and_says_why(
    ends: float | None, said: str, get: Get, fleet: Fleet, realm: Realm, tmp_path: Path
) -> None:
    rogue = Rogue(realm, realm.issuer.issue(REVIEWS))
    put_in(fleet, "", rogue.instance())
    if ends is None:
        (tmp_path / "realm" / "web").mkdir()
        mesh = meshlib.Mesh(state_dir=fleet.state_dir, service="web", identity=realm.url("web"))
    else:
        realm.lifetime = ends
        mesh = realm.mesh(fleet, "web")
    with rogue.listener, mesh, pytest.raises(meshlib.ConnectFailed, match=said):
        get(mesh, "http://reviews/secret")
    assert rogue.listener.connections == 0, "it was spoken to, in the clear perhaps"


# The server refuses

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: default}
spec:
  selector: {matchLabels: {app: strict}}
  mtls: {mode: STRICT}
"""

MODES = ("strict", "open")
GATEWAY = Realm.id("gateway")


class Servers:
    """One server in mode STRICT, and one that takes plain text as well."""

    def __init__(self, folder: Path) -> None:
        self.realm = Realm(folder / "realm")
        self.fleet = Fleet(folder, Path(__file__).parent / "apps")
        put_in(self.fleet, STRICT)
        variables = {"LEDGER_HANDSHAKE": str(HANDSHAKE), "MESHLIB_TRUSTED_HOPS": GATEWAY}
        self.processes = {mode: self.realm.serve(self.fleet, mode, **variables) for mode in MODES}
        self.where = {mode: address(server) for mode, server in self.processes.items()}
        for mode in MODES:
            self.fleet.wait_for(mode)
        self.trusted = self.realm.caller("trusted")
        eventually(lambda: not self.plain("strict", b"GET / HTTP/1.1\r\nhost: strict\r\n\r\n"), 20.0)

    def heard_of(self, mode: str, path: str) -> bool:
        """Whether the application was called with a path."""
        return f"/{path}" in ask(self.where[mode], self.trusted, path="ledger").body["paths"]

    def log(self, mode: str) -> str:
        return self.processes[mode].written()

    def plain(self, mode: str, sent: bytes, *, timeout: float = 10.0) -> bytes:
        """What comes back for these bytes, until the server hangs up."""
        came = b""
        opened = socket.create_connection(self.where[mode], timeout=timeout)
        with opened as sock, contextlib.suppress(ConnectionError):
            sock.sendall(sent)
            while data := sock.recv(65536):
                came += data
        return came


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    started = Servers(tmp_path_factory.mktemp("servers"))
    yield started
    started.fleet.end()


FRONT = Realm.id("front")
WRONG_CALLERS: dict[str, tuple[Callable[[Authority], Issued], str]] = {
    "other-domain": (
        lambda root: root.issue(FRONT.replace("mesh.test", "mesh.example")),
        "spiffe://mesh.example/ns/default/sa/front, which is not of the trust domain mesh.test",
    ),
    "domain-that-begins-alike": (
        lambda root: root.issue(FRONT.replace("mesh.test", "mesh.test.example")),
        "spiffe://mesh.test.example/ns/default/sa/front, which is not of the trust domain mesh.test",
    ),
    "other-root": (lambda _: Authority("first").issue(FRONT), "isn't good: unable to get local issuer certificate"),
    "expired": (lambda root: root.issue(FRONT, ends=-1), "certificate has expired"),
    "not-yet-valid": (lambda root: root.issue(FRONT, begins=3600, ends=7200), "certificate is not yet valid"),
    "self-signed": (lambda _: self_signed(FRONT), "self-signed certificate"),
    "two-uris": (lambda root: root.issue(FRONT, RATINGS), f"2 URI SANs ('{FRONT}', '{RATINGS}')"),
    "wildcard": (lambda root: root.issue(Realm.id("*")), f"'{Realm.id('*')}' is no SPIFFE ID"),
    "for-servers-only": (lambda root: root.issue(FRONT, usage=[SERVER]), "certificate purpose"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrong", WRONG_CALLERS)
def test_a_server_refuses_a_caller_with_a_reason_in_its_log(wrong: str, mode: str, servers: Servers) -> None:
    issue, reason = WRONG_CALLERS[wrong]
    root = servers.realm.issuer
    answered = ask(servers.where[mode], client_context(root, issue(root)), path=wrong)
    assert answered.came == b""
    eventually(lambda: reason in servers.log(mode))
    assert not servers.heard_of(mode, wrong)


@pytest.mark.parametrize("mode", MODES)
def test_a_caller_of_the_mesh_comes_in(mode: str, servers: Servers) -> None:
    answered = ask(servers.where[mode], servers.realm.caller("front"), path="welcome")
    assert answered.ok
    assert FRONT.encode() in answered.came
    assert servers.heard_of(mode, "welcome")


def test_tls_without_a_certificate_is_refused_where_the_mode_is_strict(servers: Servers) -> None:
    nobody = client_context(servers.realm.issuer, None)
    assert ask(servers.where["strict"], nobody, path="nobody").came == b""
    assert ask(servers.where["open"], nobody, path="nobody").ok
    eventually(lambda: "it shows no certificate, and PeerAuthentication says STRICT" in servers.log("strict"))
    assert not servers.heard_of("strict", "nobody")
    assert servers.heard_of("open", "nobody")


PLAIN = {
    "a request": b"GET /plain HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "one byte": b"G",
    "a byte of TLS that isn't first": b"\x17\x16\x03\x01",
}


@pytest.mark.parametrize("sent", PLAIN)
def test_plain_text_is_refused_at_once_where_the_mode_is_strict(sent: str, servers: Servers) -> None:
    began = time.monotonic()
    assert servers.plain("strict", PLAIN[sent]) == b""
    assert time.monotonic() - began < HANDSHAKE, "only the time for a handshake has ended it"
    assert "it is plain text, and PeerAuthentication says STRICT" in servers.log("strict")
    assert not servers.heard_of("strict", "plain")


def test_a_caller_without_an_identity_in_the_mesh_is_told_that_the_server_hung_up(servers: Servers) -> None:
    with servers.fleet.mesh() as mesh:
        with pytest.raises(meshlib.ConnectionBroken, match="strict"):
            sync_get(mesh, "http://strict/from-a-mesh")
        assert sync_get(mesh, "http://open/from-a-mesh").json()["peer"] is None
    assert not servers.heard_of("strict", "from-a-mesh")
    assert servers.heard_of("open", "from-a-mesh")


@pytest.mark.parametrize("get", [sync_get, async_get])
def test_a_caller_that_the_server_refuses_learns_that_it_was_the_certificate(get: Get, servers: Servers) -> None:
    """Of a root that is in the caller's bundle alone: the caller has no way of knowing before."""
    realm = servers.realm
    other = Authority("a root of the caller's")
    issued = other.issue(Realm.id("stranger"))
    folder = servers.fleet.state_dir.parent / f"stranger-{get.__name__}"
    folder.mkdir()
    for name, content in (
        ("tls.crt", issued.certificates),
        ("tls.key", issued.key),
        ("ca.crt", other.roots + realm.issuer.roots),
    ):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    mesh = meshlib.Mesh(state_dir=servers.fleet.state_dir, identity=f"files://{folder}")
    with mesh, pytest.raises(meshlib.CallError) as failure:
        get(mesh, "http://strict/stranger")
    assert "if it refused our certificate, its log says why" in str(failure.value)
    eventually(lambda: "its certificate isn't good: " in servers.log("strict"))
    assert not servers.heard_of("strict", "stranger")


@pytest.mark.parametrize("get", [sync_get, async_get])
def test_a_caller_of_another_trust_domain_calls_nobody_whose_identity_its_bundle_cant_vouch_for(
    get: Get, servers: Servers
) -> None:
    """Of the same root, which has signed for two trust domains."""
    realm = servers.realm
    issued = realm.issuer.issue("spiffe://mesh.example/ns/default/sa/neighbour")
    folder = servers.fleet.state_dir.parent / f"neighbour-{get.__name__}"
    folder.mkdir()
    for name, content in (
        ("tls.crt", issued.certificates),
        ("tls.key", issued.key),
        ("ca.crt", realm.issuer.roots),
    ):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    mesh = meshlib.Mesh(state_dir=servers.fleet.state_dir, identity=f"files://{folder}")
    with mesh, pytest.raises(meshlib.ConnectFailed, match=r"not of the trust domain mesh\.example"):
        get(mesh, "http://strict/neighbour")
    assert not servers.heard_of("strict", "neighbour")


def test_a_forwarded_certificate_is_seen_from_a_trusted_hop_only(servers: Servers) -> None:
    header = {"x-forwarded-client-cert": f"By={Realm.id('open')};Hash=00;URI={RATINGS}"}
    for service, believed in (("gateway", True), ("forger", False)):
        with servers.realm.mesh(servers.fleet, service) as mesh, meshlib.Client(mesh=mesh) as client:
            seen = client.get("http://open/forwarded", headers=header).json()
        assert seen["peer"] == (RATINGS if believed else Realm.id(service))
        assert seen["forwarded"] == (header["x-forwarded-client-cert"] if believed else None)
    with servers.fleet.mesh() as mesh, meshlib.Client(mesh=mesh) as client:  # in the clear, from nobody
        seen = client.get("http://open/forwarded", headers=header).json()
    assert (seen["peer"], seen["forwarded"]) == (None, None)
    eventually(lambda: f"{Realm.id('forger')} (127.0.0.1) came in; what it sent as" in servers.log("open"))


# An attacker at the door


class Pieces:
    """A TLS client whose every byte the test sends as it likes."""

    def __init__(self, where: tuple[str, int], context: ssl.SSLContext, path: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._path = path
        self.sock = socket.create_connection(where, timeout=10.0)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def hello(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._outgoing.read()

    def go_on(self) -> bytes:
        """The rest of the handshake and a request, in whole records; what came."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._receive()
        self._tls.write(b"GET /%s HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n" % self._path.encode())
        came = b""
        while True:
            self.sock.sendall(self._outgoing.read())
            try:
                came += (piece := self._tls.read(65536))
                if not piece:
                    return came
            except ssl.SSLWantReadError:
                self._receive()
            except ssl.SSLZeroReturnError:
                return came

    def _receive(self) -> None:
        self.sock.sendall(self._outgoing.read())
        data = self.sock.recv(65536)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


def byte_by_byte(hello: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in hello]


def first_byte_alone(hello: bytes) -> list[bytes]:
    return [hello[:1], hello[1:]]


def a_record_for_every_byte(hello: bytes) -> list[bytes]:
    """One handshake message in as many records as it has bytes (RFC 8446, 5.1 allows it)."""
    assert hello[0] == 0x16
    assert len(hello) == 5 + int.from_bytes(hello[3:5], "big")
    return [hello[:3] + b"\0\1" + bytes([byte]) for byte in hello[5:]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cut", [byte_by_byte, first_byte_alone, a_record_for_every_byte])
def test_a_hello_in_pieces_is_tls_all_the_same(
    cut: Callable[[bytes], list[bytes]], mode: str, servers: Servers
) -> None:
    pieces = Pieces(servers.where[mode], servers.realm.caller("front"), cut.__name__)
    with pieces.sock as sock:
        for piece in cut(pieces.hello()):
            sock.sendall(piece)
        came = pieces.go_on()
    assert came.startswith(b"HTTP/1.1 200")
    assert FRONT.encode() in came


def test_the_preface_of_http2_calls_nothing_on_a_port_for_both(servers: Servers) -> None:
    before = ask(servers.where["open"], servers.trusted, path="ledger").body
    assert not servers.plain("open", PLAIN["the preface of HTTP/2"]).startswith(b"HTTP/1.1 200")
    context = servers.realm.caller("front")
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(servers.where["open"], timeout=10.0) as sock, context.wrap_socket(sock) as tls:
        assert tls.selected_alpn_protocol() is None
        tls.sendall(PLAIN["the preface of HTTP/2"])
        assert not tls.recv(65536).startswith(b"HTTP/1.1 200")
    assert ask(servers.where["open"], servers.trusted, path="ledger").body == before


@pytest.mark.parametrize("mode", MODES)
def test_who_falls_silent_is_let_go_in_time_and_keeps_nobody_waiting(mode: str, servers: Servers) -> None:
    hello = Pieces(servers.where[mode], servers.trusted, "")
    hello.sock.close()
    whole = hello.hello()
    with contextlib.ExitStack() as stack:
        silent = []
        for sent in (b"", whole[:1], whole[:100], whole, *[b""] * 30):
            sock = stack.enter_context(socket.create_connection(servers.where[mode], timeout=HANDSHAKE + 10.0))
            sock.sendall(sent)
            silent.append(sock)
        began = time.monotonic()
        assert ask(servers.where[mode], servers.trusted).ok
        assert time.monotonic() - began < HANDSHAKE, "the silent ones had to be let go first"
        for sock in silent:
            with contextlib.suppress(ConnectionError):
                while sock.recv(65536):
                    pass


@pytest.mark.parametrize("mode", MODES)
def test_a_tls_version_nobody_should_speak_is_refused(mode: str, servers: Servers) -> None:
    context = servers.realm.caller("front")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    answered = ask(servers.where[mode], context, path="old-version")
    assert answered.came == b""
    assert not servers.heard_of(mode, "old-version")
