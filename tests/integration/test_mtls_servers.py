"""mTLS on the servers people use: who calls is known, modes hold, certificates turn, and strangers stay outside."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import eventually
from tests.support.authority import Authority, Issued
from tests.support.fences import DOCS, blocks
from tests.support.servers import Fleet, Server
from tests.unit.identity.hands import CALLER, US, client_context
from tests.unit.identity.test_incoming import REFUSED

HYPERCORN = ("-m", "hypercorn", "--bind", "127.0.0.1:0", "--config", "file:mtls_hypercorn.py", "mtls_app:app")
GUNICORN = ("-m", "gunicorn", "--bind", "127.0.0.1:0", "--no-control-socket", "--config", "mtls_gunicorn.py")

SERVERS = {
    "uvicorn with h11": ("mtls_uvicorn.py", "h11", "asyncio"),
    "uvicorn with h11 and uvloop": ("mtls_uvicorn.py", "h11", "uvloop"),
    "uvicorn with httptools": ("mtls_uvicorn.py", "httptools", "asyncio"),
    "uvicorn with httptools and uvloop": ("mtls_uvicorn.py", "httptools", "uvloop"),
    "uvicorn of old": ("mtls_uvicorn_of_old.py",),
    "hypercorn": HYPERCORN,
    "hypercorn with uvloop": (*HYPERCORN, "--worker-class", "uvloop"),
    "hypercorn with trio": (*HYPERCORN, "--worker-class", "trio"),
    "gunicorn": (*GUNICORN, "mtls_app:wsgi()"),
    "gunicorn with threads": (*GUNICORN, "--threads", "4", "mtls_app:wsgi()"),
    "gunicorn with threads and preload": (*GUNICORN, "--threads", "4", "--preload", "mtls_app:wsgi()"),
    "gunicorn with asgi": (*GUNICORN, "--worker-class", "asgi", "mtls_app:app"),
    "flask's own": ("mtls_flask.py",),
}
ONE_OF_EACH = ["uvicorn with httptools and uvloop", "hypercorn", "gunicorn", "gunicorn with threads"]

OTHER = "spiffe://mesh.test/ns/default/dc/dc1/svc/other"

MODE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: default}}
spec: {{mtls: {{mode: {mode}}}}}
"""


class Place:
    """One server in a mesh of the test's own, and who calls it."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.root = Authority()
        self._fleet = fleet
        self._identity = folder / "identity"
        self._documents = folder / "documents"
        self._identity.mkdir()
        self._documents.mkdir()
        self.turn(self.root, self.root)

    def turn(self, issuer: Authority, *roots: Authority) -> None:
        """Give the server another certificate, and these roots."""
        issued = issuer.issue(US)
        self._put("ca.crt", b"".join(root.roots for root in roots))
        self._put("tls.key", issued.key)
        self._put("tls.crt", issued.certificates)

    def _put(self, name: str, content: bytes) -> None:
        aside = self._identity / f".{name}"
        aside.write_bytes(content)
        aside.chmod(0o600)
        aside.rename(self._identity / name)

    def mode(self, mode: str) -> None:
        aside = self._documents / "mode.new"
        aside.write_text(MODE.format(mode=mode))
        aside.rename(self._documents / "mode.yaml")

    def start(self, kind: str, service: str | None = None, **variables: str) -> None:
        ours = {"MESHLIB_REGISTRY": f"file://{self._documents}", "MESHLIB_IDENTITY": f"files://{self._identity}"}
        self.server: Server = self._fleet.start(service, *SERVERS[kind], **(ours | variables))

        def listening() -> re.Match[str] | None:
            assert self.server.process.poll() is None, self.server.written()
            return re.search(r"https?://127\.0\.0\.1:(\d+)", self.server.written())

        found = eventually(listening, 30.0)
        assert found is not None
        self.port = int(found[1])
        eventually(lambda: self.accepts(self.caller()), 20.0)

    def caller(self, *uris: str) -> ssl.SSLContext:
        return client_context(self.root, self.root.issue(*(uris or (CALLER,))))

    def nobody(self) -> ssl.SSLContext:
        return client_context(self.root, None)

    def client(self, who: ssl.SSLContext | None) -> httpx.Client:
        """A client that shows `who`, or speaks plain text."""
        scheme = "http" if who is None else "https"
        return httpx.Client(base_url=f"{scheme}://127.0.0.1:{self.port}", verify=who or False)

    def announced(self) -> list[str]:
        """The identities that the instances of `web` have in the default registry."""
        return [instance.identity for instance in self._fleet.wait_for("web")]

    def ask(self, who: ssl.SSLContext | None, **headers: str) -> dict[str, Any]:
        """One request on a connection of its own."""
        with self.client(who) as client:
            return answer(client, **headers)

    def accepts(self, who: ssl.SSLContext | None) -> bool:
        try:
            with self.client(who) as client:
                return client.get("/seen").is_success  # not while it has no configuration
        except httpx.TransportError:
            return False


def answer(client: httpx.Client, **headers: str) -> dict[str, Any]:
    reply = client.get("/seen", headers=headers)
    assert reply.status_code == 200, reply.text
    seen: dict[str, Any] = reply.json()
    return seen


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    fleet = Fleet(tmp_path, Path(__file__).parent / "apps")
    yield Place(tmp_path, fleet)
    fleet.end()


@pytest.mark.parametrize("server", ["hypercorn", "gunicorn"])
def test_the_page_shows_the_configuration_that_is_tested_here(server: str) -> None:
    tested = (Path(__file__).parent / "apps" / f"mtls_{server}.py").read_text("utf-8")
    code = re.sub(r'^""".*?"""|  # (noqa|type).*$', "", tested, flags=re.MULTILINE).strip()
    assert code in [block.text.strip() for block in blocks(DOCS / "how-to" / "mtls-servers.md", "python")]


@pytest.mark.parametrize("kind", SERVERS)
def test_each_caller_is_known_on_its_own_connection(kind: str, place: Place) -> None:
    place.start(kind)
    callers = {CALLER: place.caller(), OTHER: place.caller(OTHER), "nobody": place.nobody(), "plain": None}
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(place.client(who)) for name, who in callers.items()}
        for _ in range(2):
            seen = {name: answer(client) for name, client in clients.items()}
            assert {name: view["peer"] for name, view in seen.items()} == {
                CALLER: CALLER, OTHER: OTHER, "nobody": None, "plain": None,
            }  # fmt: skip
            assert [view["scheme"] for view in seen.values()] == ["https", "https", "https", "http"]
    assert "Traceback" not in place.server.written()


@pytest.mark.parametrize("kind", [kind for kind in SERVERS if kind != "flask's own"])
def test_a_server_that_takes_mtls_is_registered_with_its_identity(kind: str, place: Place) -> None:
    place.start(kind, "web", MESHLIB_REGISTRY="")
    assert place.announced() == [US]


@pytest.mark.parametrize("kind", SERVERS)
def test_a_mode_holds_from_the_next_connection_on(kind: str, place: Place) -> None:
    place.start(kind)
    caller, nobody = place.caller(), place.nobody()
    assert place.accepts(None)
    place.mode("STRICT")
    eventually(lambda: not place.accepts(None), 10.0)
    before = place.ask(caller)["calls"]
    for who in (None, nobody):
        with pytest.raises(httpx.TransportError):
            place.ask(who)
    assert place.ask(caller)["calls"] == before + 1
    assert "plain text, and PeerAuthentication says STRICT" in place.server.written()
    assert "shows no certificate" in place.server.written()
    place.mode("DISABLE")
    eventually(lambda: place.accepts(None), 10.0)
    with pytest.raises(httpx.TransportError):
        place.ask(caller)
    assert place.ask(None)["peer"] is None
    assert "Traceback" not in place.server.written()


@pytest.mark.parametrize("kind", ["uvicorn with httptools", "hypercorn", "gunicorn with asgi"])
def test_plain_text_on_an_open_connection_is_denied_once_the_mode_is_strict(kind: str, place: Place) -> None:
    place.start(kind)
    with place.client(None) as client:
        before = answer(client)["calls"]
        place.mode("STRICT")
        eventually(lambda: not place.accepts(None), 10.0)
        calls = place.ask(place.caller())["calls"]
        reply = client.get("/seen")
        assert reply.status_code == 403
        assert reply.headers["x-meshlib-reason"] == "RBAC"
        assert place.ask(place.caller())["calls"] == calls + 1 > before


@pytest.mark.parametrize("kind", ["uvicorn with h11", "hypercorn", "gunicorn with asgi"])
def test_a_websockets_caller_is_known(kind: str, place: Place) -> None:
    place.start(kind)

    def upgrade(who: ssl.SSLContext | None) -> bytes:
        """What comes back on a connection that asks to be a websocket."""
        lines = ["GET /ws HTTP/1.1", "host: web", "connection: upgrade", "upgrade: websocket"]
        lines += ["sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", place.port), timeout=5.0))
            if who is not None:
                sock = stack.enter_context(who.wrap_socket(sock))
            sock.sendall("\r\n".join(lines).encode())
            came = b""
            while b'"pid"' not in came and (more := sock.recv(4096)):
                came += more
            return came

    came = upgrade(place.caller())
    assert came.startswith(b"HTTP/1.1 101")
    assert f'"peer": "{CALLER}", "scheme": "wss"'.encode() in came
    came = upgrade(None)
    assert b'"peer": null, "scheme": "ws"' in came


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_strangers_stay_outside_with_a_reason_in_the_log(kind: str, place: Place) -> None:
    place.mode("STRICT")
    place.start(kind)
    eventually(lambda: not place.accepts(None), 10.0)
    caller = place.caller()
    before = place.ask(caller)["calls"]
    for issue, reason in REFUSED.values():
        issued: Issued = issue(place.root)
        with pytest.raises(httpx.TransportError):
            place.ask(client_context(place.root, issued))
        eventually(lambda reason=reason: reason in place.server.written())  # type: ignore[misc]
    assert place.ask(caller)["calls"] == before + 1
    assert "Traceback" not in place.server.written()


@pytest.mark.parametrize("kind", ["uvicorn with httptools", "gunicorn with threads"])
def test_a_forwarded_certificate_counts_from_a_trusted_hop_only(kind: str, place: Place) -> None:
    place.start(kind, MESHLIB_TRUSTED_HOPS=OTHER)
    header = {"x-forwarded-client-cert": f"By={US};Hash=00;URI={CALLER}"}
    trusted = place.ask(place.caller(OTHER), **header)
    assert (trusted["peer"], trusted["forwarded"]) == (CALLER, header["x-forwarded-client-cert"])
    forger = "spiffe://mesh.test/ns/default/dc/dc1/svc/forger"
    forged = place.ask(place.caller(forger), **header)
    assert (forged["peer"], forged["forwarded"]) == (forger, None)
    forged = place.ask(None, **header)
    assert (forged["peer"], forged["forwarded"]) == (None, None)
    assert "x-forwarded-client-cert doesn't count" in place.server.written()


class Load:
    """Requests without an end from two threads, every one on a new connection."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self.count = 0
        self.failures: list[str] = []
        self._ask = ask
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._ask()
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
            self.count += 1

    def further(self, calls: int) -> None:
        target = self.count + calls
        eventually(lambda: self.count >= target, 30.0)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def shown(place: Place) -> bytes:
    """The certificate the server shows."""
    with socket.create_connection(("127.0.0.1", place.port), timeout=5.0) as sock, any_root().wrap_socket(sock) as tls:
        return tls.getpeercert(binary_form=True) or b""


def any_root() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("kind", [*ONE_OF_EACH, "gunicorn with threads and preload"])
def test_certificates_and_roots_turn_under_load_and_the_old_root_is_out(kind: str, place: Place) -> None:
    place.start(kind)
    old, new = place.root, Authority()
    caller = client_context(old, old.issue(CALLER))
    caller.load_verify_locations(cadata=new.roots.decode())
    renewed = client_context(new, new.issue(CALLER))
    renewed.load_verify_locations(cadata=old.roots.decode())
    current = caller

    def turn(issuer: Authority, *roots: Authority) -> None:
        before = shown(place)
        place.turn(issuer, *roots)
        eventually(lambda: shown(place) != before, 10.0)
        load.further(20)

    load = Load(lambda: place.ask(current))
    try:
        turn(old, old)
        turn(old, old, new)
        current = renewed
        load.further(4)  # those that began before
        turn(new, old, new)
        turn(new, new)
    finally:
        load.end()
    assert load.failures == []
    assert not place.accepts(caller)
    assert place.ask(renewed)["peer"] == CALLER


@pytest.mark.parametrize("kind", ONE_OF_EACH)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_of_a_withdrawn_root_is_resumed(kind: str, version: ssl.TLSVersion, place: Place) -> None:
    place.start(kind)
    old, new = place.root, Authority()
    caller = client_context(old, old.issue(CALLER), maximum_version=version)
    caller.load_verify_locations(cadata=new.roots.decode())

    def request(session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None, bool | None]:
        opened = socket.create_connection(("127.0.0.1", place.port), timeout=5.0)
        with opened, caller.wrap_socket(opened, session=session) as tls:
            tls.sendall(b"GET /seen HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
            return tls.recv(4096), tls.session, tls.session_reused

    came, session, _ = request(None)
    assert came.startswith(b"HTTP/1.1 200")
    assert session is not None
    before = shown(place)
    place.turn(new, new)
    eventually(lambda: shown(place) != before, 10.0)
    for tried in (session, None):
        try:
            came, _, reused = request(tried)
        except OSError:
            continue
        assert (came, reused) == (b"", False)
