"""TLS and HTTP/2: the endpoint is dialled, the logical host is believed."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import pytest
import trustme

from meshlib.call.effects import Failure
from meshlib.wire.message import Request, WireError
from tests.wire.conftest import Client, Flavour
from tests.wire.server import OK, Peer, Script, Server

FALLBACKS = ("fallback-asyncio", "fallback-trio", "fallback-blocking")


@pytest.fixture(params=FALLBACKS)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    return Flavour(request.param)


class Tls:
    """A CA, a server certificate for `reviews`, and what the server saw."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.seen: list[str | None] = []
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert("reviews").configure_cert(self.server)
        self.server.set_alpn_protocols(["h2", "http/1.1"])
        self.server.sni_callback = lambda _sock, name, _context: self.seen.append(name)

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    def serving(self, script: Script) -> Script:
        """`script` behind TLS; a client that goes away in the handshake is no problem of the test."""

        def wrapped(peer: Peer) -> None:
            try:
                peer.sock = self.server.wrap_socket(peer.sock, server_side=True)
            except ssl.SSLError:
                return
            try:
                script(peer)
            finally:
                peer.sock.close()

        return wrapped


@pytest.fixture(scope="module")
def tls() -> Iterator[Tls]:
    return Tls()


def http11(peer: Peer) -> None:
    while head := peer.head():
        assert b"Host: reviews" in head
        peer.send(OK)


def http2(peer: Peer) -> None:
    """Answer each request with its method, authority and the size of its body."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    peer.send(connection.data_to_send())
    heads: dict[int, dict[bytes, bytes]] = {}
    sizes: dict[int, int] = {}
    while data := peer.sock.recv(65536):
        for event in connection.receive_data(data):
            match event:
                case h2.events.RequestReceived():
                    heads[event.stream_id] = dict(event.headers)
                    sizes[event.stream_id] = 0
                case h2.events.DataReceived():
                    sizes[event.stream_id] += len(event.data)
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    head = heads[event.stream_id]
                    text = b"%b %b %d" % (head[b":method"], head[b":authority"], sizes[event.stream_id])
                    connection.send_headers(event.stream_id, [(":status", "200")])
                    connection.send_data(event.stream_id, text, end_stream=True)
        peer.send(connection.data_to_send())


def test_tls_checks_the_logical_name_and_keeps_the_connection(flavour: Flavour, tls: Tls) -> None:
    tls.seen.clear()

    async def scenario(client: Client) -> None:
        for _ in range(3):
            answer = await client.call()
            assert (answer.version, answer.body) == (b"HTTP/1.1", b"ok")
        assert client.channel.idle == 1

    with Server(tls.serving(http11)) as server:
        flavour.run(server.port, scenario, scheme="https", ssl_context=tls.client())
        assert server.connections == 1
    assert tls.seen == ["reviews"]


def test_a_server_name_of_its_own_may_be_asked_for(flavour: Flavour, tls: Tls) -> None:
    tls.seen.clear()

    async def scenario(client: Client) -> None:
        with pytest.raises(WireError) as caught:
            await client.call()
        assert caught.value.failure is Failure.CONNECT

    with Server(tls.serving(http11)) as server:
        flavour.run(server.port, scenario, scheme="https", ssl_context=tls.client(), sni="ratings")
    assert tls.seen == ["ratings"]


def test_a_certificate_nobody_vouches_for_is_a_connect_failure_before_any_byte_of_the_request(
    flavour: Flavour, tls: Tls
) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(WireError, match=r"(?i)certificate") as caught:
            await client.call()
        assert caught.value.failure is Failure.CONNECT
        assert not caught.value.sent
        assert client.channel.busy == 0

    with Server(tls.serving(http11)) as server:
        flavour.run(server.port, scenario, scheme="https", ssl_context=ssl.create_default_context())


@pytest.mark.parametrize("encrypted", [True, False])
def test_http2_carries_requests_with_and_without_bodies(flavour: Flavour, tls: Tls, encrypted: bool) -> None:
    async def scenario(client: Client) -> None:
        answer = await client.call()
        assert (answer.version, answer.body) == (b"HTTP/2", b"GET reviews 0")
        assert (await client.call(method=b"PUT", body=bytes(300_000))).body == b"PUT reviews 300000"
        stream = (bytes(50_000) for _ in range(10))
        assert (await client.call(method=b"PUT", body=stream)).body == b"PUT reviews 500000"

    options = {"scheme": "https", "ssl_context": tls.client()} if encrypted else {"scheme": "http"}
    with Server(tls.serving(http2) if encrypted else http2) as server:
        flavour.run(server.port, scenario, http2=True, **options)
        assert server.connections == 1


def test_several_responses_share_one_http2_connection(flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        request = Request(b"GET", b"/", [(b"Host", b"reviews")])
        replies = [await client.send(request) for _ in range(3)]
        assert client.channel.busy == 3
        for reply in reversed(replies):
            assert b"".join(await client.pieces(reply)) == b"GET reviews 0"
            await client.close(reply)
        assert client.channel.busy == 0

    with Server(http2) as server:
        flavour.run(server.port, scenario, http2=True)
        assert server.connections == 1


@pytest.mark.parametrize("code", [0x8, 0x2])
def test_an_http2_stream_that_is_reset_is_a_reset(flavour: Flavour, code: int) -> None:
    def script(peer: Peer) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        while data := peer.sock.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    connection.reset_stream(event.stream_id, code)
            peer.send(connection.data_to_send())

    async def scenario(client: Client) -> None:
        with pytest.raises(WireError) as caught:
            await client.call()
        assert caught.value.failure is Failure.RESET
        assert caught.value.sent

    with Server(script) as server:
        flavour.run(server.port, scenario, http2=True)
