"""What a peer can get wrong, and how long it may take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from meshlib.call.effects import Failure
from meshlib.wire.http1 import MAX_HEAD_BYTES, MAX_HEADERS, MAX_INTERIM
from meshlib.wire.message import Request, Timing, WireError
from tests.support import eventually
from tests.wire.conftest import Client, Flavour, soon
from tests.wire.server import OK, Peer, Server, answering

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


MALFORMED = {
    "no HTTP": b"hello world\r\n\r\n",
    "another protocol's greeting": b"SSH-2.0-OpenSSH\r\n",
    "HTTP/2 in clear": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 What\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 What\r\nContent-Length: 0\r\n\r\n",
    "length and chunked": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "length in exponents": HEAD + b"Content-Length: 1e3\r\n\r\n",
    "gzip as transfer coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown transfer coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "folded header": HEAD + b"A: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
    "blank before colon": HEAD + b"A : b\r\nContent-Length: 0\r\n\r\n",
    "NUL in value": HEAD + b"A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "CR in value": HEAD + b"A: b\rc\r\nContent-Length: 0\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "header too long": HEAD + b"A: " + b"x" * MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
    "header without end": HEAD + b"A: " + b"x" * 10 * MAX_HEAD_BYTES,
    "too many headers": HEAD + b"A: b\r\n" * MAX_HEADERS + b"Content-Length: 0\r\n\r\n",
    "too many interim responses": b"HTTP/1.1 103 Hints\r\n\r\n" * (MAX_INTERIM + 1) + OK,
    "unasked switch": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "unasked switch without headers": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "chunk size no number": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "chunk longer than said": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "chunk size too large": CHUNKED + b"ffffffffffffffffff\r\nabc",
    "chunk size with bare line feed": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "chunk extension without end": CHUNKED + b"3;" + b"x" * 10 * MAX_HEAD_BYTES,
    "too many trailers": CHUNKED + b"0\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
    "trailer without end": CHUNKED + b"0\r\nA: " + b"x" * 10 * MAX_HEAD_BYTES,
    "length as trailer": CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n",
}


@pytest.mark.parametrize(
    "response",
    MALFORMED.values(),
    ids=MALFORMED.keys(),
)
def test_what_is_no_proper_http_is_refused_and_the_connection_closed(flavour: Flavour, response: bytes) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(WireError, match=f"127.0.0.1:{server.port}: ") as caught:
            await client.call(resend=True)
        assert caught.value.failure is Failure.PROTOCOL
        assert (caught.value.sent, caught.value.received) == (True, True)
        assert (client.channel.idle, client.channel.busy) == (0, 0)

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(response)
        peer.rest()

    with Server(script) as server:
        flavour.run(server.port, scenario)


@pytest.mark.parametrize(
    "response", [HEAD + b"Content-Length: 10\r\n\r\nshort", CHUNKED + b"5\r\nshort\r\n", CHUNKED + b"9\r\nshort"]
)
def test_a_body_cut_short_is_an_error_and_never_a_shorter_body(any_flavour: Flavour, response: bytes) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(WireError) as caught:
            await client.call(resend=True)
        assert caught.value.failure is Failure.PROTOCOL
        assert caught.value.received
        assert (client.channel.idle, client.channel.busy) == (0, 0)

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(response)
        peer.close()

    with Server(script) as server:
        any_flavour.run(server.port, scenario)
        assert server.connections == 1


def test_what_came_before_a_break_is_read_before_the_error(flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        reply = await client.send(Request(b"GET", b"/", [(b"Host", b"a")]))
        assert await client.first(reply) == b"short"
        with pytest.raises(WireError):
            await client.first(reply)
        with pytest.raises(WireError):
            await client.first(reply)

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(HEAD + b"Content-Length: 10\r\n\r\nshort")
        peer.close()

    with Server(script) as server:
        flavour.run(server.port, scenario)


def test_a_head_cut_short_is_a_reset_with_bytes_received(flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(WireError, match="in the middle of the response head") as caught:
            await client.call(resend=True)
        assert caught.value.failure is Failure.RESET
        assert caught.value.received

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-")
        peer.close()

    with Server(script) as server:
        flavour.run(server.port, scenario)


def silent(peer: Peer) -> None:
    peer.rest()


@pytest.mark.parametrize("bound", ["read", "head_by", "both"])
def test_a_head_that_does_not_come_in_time_is_a_timeout(any_flavour: Flavour, bound: str) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(2):
            read = 0.05 if bound != "head_by" else 10
            head_by = soon() if bound != "read" else None
            with pytest.raises(WireError) as caught:
                await client.call(timing=Timing(connect=10, read=read, head_by=head_by), resend=True)
            assert caught.value.failure is Failure.TIMEOUT
            assert (caught.value.sent, caught.value.received) == (True, False)
            assert (client.channel.idle, client.channel.busy) == (0, 0)

    with Server(silent) as server:
        any_flavour.run(server.port, scenario)


def test_a_head_that_trickles_in_is_bounded_by_its_instant(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(WireError) as caught:
            await client.call(timing=Timing(connect=10, read=5, head_by=soon(0.1)))
        assert caught.value.failure is Failure.TIMEOUT

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(HEAD)
        while not server.released.wait(0.01):
            peer.send(b"A: b\r\n")

    with Server(script) as server:
        any_flavour.run(server.port, scenario)


@pytest.mark.parametrize("bound", ["read", "body_by"])
def test_a_body_that_stalls_is_a_timeout(any_flavour: Flavour, bound: str) -> None:
    async def scenario(client: Client) -> None:
        timing = Timing(connect=10, read=0.1) if bound == "read" else Timing(connect=10, read=10, body_by=soon(0.2))
        with pytest.raises(WireError) as caught:
            await client.call(timing=timing)
        assert caught.value.failure is Failure.TIMEOUT
        assert caught.value.received
        assert (client.channel.idle, client.channel.busy) == (0, 0)

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(HEAD + b"Content-Length: 10\r\n\r\nab")
        peer.rest()

    with Server(script) as server:
        any_flavour.run(server.port, scenario)


def test_a_body_without_end_is_bounded_by_its_instant(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(WireError) as caught:
            await client.call(timing=Timing(connect=10, read=10, body_by=soon(0.2)))
        assert caught.value.failure is Failure.TIMEOUT

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(CHUNKED)
        while True:
            peer.send(b"1000\r\n" + bytes(4096) + b"\r\n")

    with Server(script) as server:
        any_flavour.run(server.port, scenario)


@pytest.mark.parametrize("bound", ["write", "head_by"])
def test_a_peer_that_takes_no_bytes_is_a_timeout(flavour: Flavour, bound: str) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(65536)

    async def scenario(client: Client) -> None:
        timing = Timing(connect=10, write=0.1) if bound == "write" else Timing(connect=10, head_by=soon(0.2))
        with pytest.raises(WireError) as caught:
            await client.call(method=b"PUT", body=pieces(), timing=timing, resend=True)
        assert caught.value.failure is Failure.TIMEOUT
        assert caught.value.sent
        assert (client.channel.idle, client.channel.busy) == (0, 0)

    def script(peer: Peer) -> None:
        eventually(server.released.is_set, 20)

    with Server(script) as server:
        flavour.run(server.port, scenario)


def test_the_bounds_of_one_call_do_not_reach_into_the_next(flavour: Flavour) -> None:
    def script(peer: Peer) -> None:
        while peer.head():
            server.released.wait(0.1)
            peer.send(OK)

    async def scenario(client: Client) -> None:
        await client.call(timing=Timing(connect=10, read=0.15, head_by=soon(0.18)))
        await client.call(timing=Timing(connect=10, read=10))
        await client.call(timing=Timing())

    with Server(script) as server:
        flavour.run(server.port, scenario)
        assert server.connections == 1


def test_sync_and_async_agree_on_a_plain_call(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.call()).headers == [(b"Content-Length", b"2")]

    with Server(answering()) as server:
        any_flavour.run(server.port, scenario)


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_what_is_no_host_name_cant_be_connected_to(any_flavour: Flavour, host: str) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(WireError) as error:
            await client.call()
        assert error.value.failure is Failure.CONNECT
        assert not error.value.sent

    with Server(answering(OK)) as server:
        any_flavour.run(server.port, scenario, host=host)


def test_a_body_s_own_error_is_the_caller_s_and_not_the_peer_s(any_flavour: Flavour) -> None:
    broken = OSError("the caller's disk")

    def pieces() -> Iterator[bytes]:
        raise broken
        yield b""

    async def async_pieces() -> AsyncIterator[bytes]:
        raise broken
        yield b""

    async def scenario(client: Client) -> None:
        with pytest.raises(OSError, match="the caller's disk") as error:
            await client.call(method=b"POST", body=pieces() if any_flavour.sync else async_pieces())
        assert error.value is broken

    with Server(answering(OK)) as server:
        any_flavour.run(server.port, scenario)


def test_a_bound_of_years_is_a_bound(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.call(timing=Timing(connect=1e8, read=1e8, write=1e8))).status == 200

    with Server(answering(OK)) as server:
        any_flavour.run(server.port, scenario)
