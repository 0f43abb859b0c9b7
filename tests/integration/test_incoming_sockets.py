"""The server's context on blocking sockets: the handshake is whole before a server reads, and bounded in time."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from meshlib.identity import handshakes
from meshlib.identity.handshakes import IncomingSocket, Refused
from meshlib.identity.incoming import ServerContext
from meshlib.plan.inbound import Inbound
from tests.support.authority import Authority
from tests.unit.identity.hands import CALLER, US, HandIdentity, client_context, material

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The server's end, and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname(), timeout=5.0)
        ours, _ = listener.accept()
    ours.settimeout(5.0)
    with ours, theirs:
        yield ours, theirs


class Setting:
    def __init__(self) -> None:
        self.root = Authority()
        self.inbound = Inbound()
        self.context = ServerContext(HandIdentity(material(self.root.issue(US), self.root)), lambda: self.inbound)

    def caller(self, *uris: str) -> ssl.SSLContext:
        return client_context(self.root, self.root.issue(*uris))


@pytest.fixture
def setting() -> Setting:
    return Setting()


@contextlib.contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` on another thread; what the peer's end makes of it isn't looked at."""

    def run() -> None:
        with contextlib.suppress(OSError):
            work()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()


def speak(setting: Setting, theirs: socket.socket, *uris: str) -> Callable[[], object]:
    def run() -> None:
        with setting.caller(*uris).wrap_socket(theirs) as tls:
            tls.sendall(b"GET /")
            tls.recv(1)

    return run


def test_a_caller_is_known_before_anything_is_read(pair: Pair, setting: Setting) -> None:
    ours, theirs = pair
    with meanwhile(speak(setting, theirs, CALLER)):
        wrapped = setting.context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
        assert isinstance(wrapped, IncomingSocket)
        assert str(wrapped.peer) == CALLER
        assert wrapped.gettimeout() == 5.0
        assert wrapped.recv(16) == b"GET /"
        wrapped.close()


def test_a_refused_caller_leaves_no_open_socket(pair: Pair, setting: Setting) -> None:
    ours, theirs = pair
    with meanwhile(speak(setting, theirs, CALLER, CALLER + "2")):
        with pytest.raises(Refused, match="2 URI SANs") as refusal:
            setting.context.wrap_socket(ours, server_side=True)
        assert refusal.value.args[0] == ssl.SSL_ERROR_EOF  # what servers take without answering
        assert ours.fileno() == -1


def test_a_plain_connection_comes_back_with_all_it_sent(pair: Pair, setting: Setting) -> None:
    ours, theirs = pair
    theirs.sendall(b"GET /")
    plain = setting.context.wrap_socket(ours, server_side=True)
    assert not isinstance(plain, ssl.SSLSocket)
    plain.do_handshake()  # gunicorn's threads ask for one
    assert plain.gettimeout() == 5.0
    assert plain.recv(16) == b"GET /"
    plain.close()


@pytest.mark.parametrize(("mode", "sent"), [("STRICT", b"GET /"), ("DISABLE", b"\x16\x03\x01")])
def test_a_mode_is_looked_up_by_the_port_that_was_called(mode: str, sent: bytes, pair: Pair, setting: Setting) -> None:
    ours, theirs = pair
    setting.inbound = Inbound("PERMISSIVE", {ours.getsockname()[1]: mode})  # type: ignore[dict-item]
    theirs.sendall(sent)
    with pytest.raises(Refused, match=mode):
        setting.context.wrap_socket(ours, server_side=True)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02"], ids=["not a byte", "half a hello"])
def test_who_is_silent_holds_no_worker(
    sent: bytes, pair: Pair, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "HANDSHAKE_WAIT", 0.05)
    ours, theirs = pair
    theirs.sendall(sent)
    began = time.monotonic()
    with pytest.raises(Refused, match=r"within 0\.05 s"):
        setting.context.wrap_socket(ours, server_side=True)
    assert time.monotonic() - began < 2.0


def test_who_goes_without_a_byte_is_no_refusal(pair: Pair, setting: Setting) -> None:
    ours, theirs = pair
    theirs.close()
    with pytest.raises(ssl.SSLEOFError):
        setting.context.wrap_socket(ours, server_side=True)


@pytest.mark.parametrize("first", ["read", "write", "send", "recv"])
def test_a_server_that_does_no_handshake_gets_one_all_the_same(first: str, pair: Pair, setting: Setting) -> None:
    """OpenSSL does it by itself at the first read, and would leave out the look at the SPIFFE ID."""
    ours, theirs = pair
    ours.settimeout(0.0)
    with meanwhile(speak(setting, theirs, CALLER, CALLER + "2")):
        wrapped = setting.context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
        wrapped.settimeout(5.0)
        with pytest.raises(Refused, match="2 URI SANs"):
            getattr(wrapped, first)(b"200" if first in {"write", "send"} else 16)
        wrapped.close()


def test_a_listening_socket_gives_checked_connections(setting: Setting) -> None:
    """The way of `http.server` and Werkzeug."""
    with (
        socket.create_server(("127.0.0.1", 0)) as plain,
        setting.context.wrap_socket(plain, server_side=True) as listener,
    ):
        address = listener.getsockname()

        def call(*uris: str) -> Callable[[], object]:
            def run() -> None:
                with socket.create_connection(address, timeout=5.0) as sock:
                    speak(setting, sock, *uris)()

            return run

        with meanwhile(call(CALLER)):
            accepted, _ = listener.accept()
            assert isinstance(accepted, IncomingSocket)
            assert str(accepted.peer) == CALLER
            accepted.close()
        with meanwhile(call(CALLER, CALLER + "2")), pytest.raises(Refused):
            listener.accept()
