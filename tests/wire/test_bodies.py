"""Bodies both ways: framing, big ones, early answers, upgrades."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from meshlib.call.effects import Failure
from meshlib.wire.message import InvalidRequest, Request, Timing, WireError
from tests.support import eventually, eventually_async
from tests.wire.conftest import ALL, Client, Flavour
from tests.wire.server import OK, Peer, Script, Server, answering

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("response", "body", "kept"),
    [
        (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
        (HEAD + b"Content-Length: 0\r\n\r\n", b"", True),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\n\r\n", b"hello", True),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", b"hello", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" + OK, b"ok", True),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    ],
)
def test_the_body_is_what_the_framing_says(any_flavour: Flavour, response: bytes, body: bytes, kept: bool) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(2):
            answer = await client.call()
            assert answer.body == body
            assert b"Link" not in dict(answer.headers)
            assert client.channel.idle == kept

    with Server(answering(response)) as server:
        any_flavour.run(server.port, scenario)


@pytest.mark.parametrize("head", [HEAD, b"HTTP/1.0 200 OK\r\n", HEAD + b"Connection: close\r\n"])
def test_a_body_without_a_length_ends_with_the_connection(any_flavour: Flavour, head: bytes) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.call()).body == b"all there is"
        assert client.channel.idle == 0

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(head + b"\r\nall ")
        peer.send(b"there is")
        peer.close()

    with Server(script) as server:
        any_flavour.run(server.port, scenario)


@pytest.mark.parametrize(
    "header", [b"Content-Length: 1000", b"Transfer-Encoding: chunked", b"Content-Length: 0", b"A: b"]
)
def test_a_response_to_head_has_no_body_whatever_it_says(flavour: Flavour, header: bytes) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(2):
            assert (await client.call(method=b"HEAD")).body == b""
            assert client.channel.idle == 1

    with Server(answering(HEAD + header + b"\r\n\r\n")) as server:
        flavour.run(server.port, scenario)


def test_a_response_that_comes_byte_by_byte_is_read_all_the_same(flavour: Flavour) -> None:
    response = HEAD + b"X-Name: value\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

    async def scenario(client: Client) -> None:
        answer = await client.call()
        assert (answer.reason, answer.body) == (b"OK", b"abc")
        assert (b"X-Name", b"value") in answer.headers

    def script(peer: Peer) -> None:
        while peer.head():
            for byte in response:
                peer.send(bytes([byte]))

    with Server(script) as server:
        flavour.run(server.port, scenario)


BIG = 20_000_000


def test_a_big_download_arrives_whole(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        reply = await client.send(Request(b"GET", b"/", [(b"Host", b"a")]))
        assert sum(map(len, await client.pieces(reply))) == BIG
        await client.close(reply)
        assert client.channel.idle == 1

    def script(peer: Peer) -> None:
        while peer.head():
            peer.send(HEAD + b"Content-Length: %d\r\n\r\n" % BIG)
            for _ in range(20):
                peer.send(bytes(BIG // 20))

    with Server(script) as server:
        any_flavour.run(server.port, scenario)


def counting(peer: Peer) -> None:
    """Answer with the number of bytes of the request body, decoding chunks."""
    while head := peer.head():
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if b"content-length" in lines:
            count = len(peer.exactly(int(lines[b"content-length"])))
        else:
            assert lines[b"transfer-encoding"] == b"chunked"
            count = 0
            while size := int(line(peer), 16):
                count += len(peer.exactly(size))
                assert peer.exactly(2) == b"\r\n"
            assert peer.exactly(2) == b"\r\n"
        text = b"%d" % count
        peer.send(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(text), text))


def line(peer: Peer) -> bytes:
    text = b""
    while not text.endswith(b"\r\n"):
        text += peer.exactly(1)
    return text[:-2]


def pieces(count: int, size: int) -> Iterator[bytes]:
    return (bytes(size) for _ in range(count))


class Stream:
    """An async request body."""

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.count):
            yield bytes(self.size)


def test_a_big_buffered_upload_arrives_whole(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(2):
            assert (await client.call(method=b"PUT", body=bytes(BIG))).body == b"%d" % BIG
        assert client.channel.idle == 1

    with Server(counting) as server:
        any_flavour.run(server.port, scenario)
        assert server.connections == 1


def test_a_small_buffered_upload_may_go_in_one_chunk(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        chunked = [(b"Transfer-Encoding", b"chunked")]
        assert (await client.call(method=b"PUT", body=b"abc", headers=chunked)).body == b"3"
        assert (await client.call(method=b"PUT", body=b"", headers=[(b"Content-Length", b"0")])).body == b"0"

    with Server(counting) as server:
        any_flavour.run(server.port, scenario)


@pytest.mark.parametrize("name", ALL)
def test_a_streamed_upload_is_chunked_unless_its_length_is_known(name: str) -> None:
    flavour = Flavour(name)

    async def scenario(client: Client) -> None:
        assert (await client.call(method=b"PUT", body=pieces(200, 100_000))).body == b"%d" % BIG
        known = [(b"Content-Length", b"%d" % BIG)]
        assert (await client.call(method=b"PUT", body=pieces(200, 100_000), headers=known)).body == b"%d" % BIG
        if not flavour.sync:
            assert (await client.call(method=b"PUT", body=Stream(200, 100_000))).body == b"%d" % BIG

    with Server(counting) as server:
        flavour.run(server.port, scenario)
        assert server.connections == 1


def test_an_empty_stream_is_an_empty_body(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.call(method=b"PUT", body=pieces(0, 0))).body == b"0"
        assert (await client.call(method=b"PUT", body=pieces(3, 0))).body == b"0"

    with Server(counting) as server:
        any_flavour.run(server.port, scenario)


@pytest.mark.parametrize("sizes", [(1, 5), (1, 3), (2, 3)])
def test_a_stream_that_belies_its_content_length_is_the_callers_mistake(
    flavour: Flavour, sizes: tuple[int, int]
) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(InvalidRequest, match="Content-Length"):
            await client.call(method=b"PUT", body=pieces(*sizes), headers=[(b"Content-Length", b"4")])
        assert (client.channel.idle, client.channel.busy) == (0, 0)

    def script(peer: Peer) -> None:
        peer.head()
        assert len(peer.rest()) <= 4

    with Server(script) as server:
        flavour.run(server.port, scenario)


def test_an_error_in_the_callers_stream_comes_out_untouched(any_flavour: Flavour) -> None:
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise LookupError("mine")

    async def scenario(client: Client) -> None:
        with pytest.raises(LookupError, match="mine"):
            await client.call(method=b"PUT", body=broken())
        assert (client.channel.idle, client.channel.busy) == (0, 0)

    def script(peer: Peer) -> None:
        peer.head()
        assert not peer.rest().endswith(b"0\r\n\r\n")

    with Server(script) as server:
        any_flavour.run(server.port, scenario)


@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer_before_the_upload_ends_stops_the_upload(flavour: Flavour, streamed: bool) -> None:
    taken = [0]

    def counted() -> Iterator[bytes]:
        for _ in range(10_000):
            taken[0] += 1
            yield bytes(65536)

    async def scenario(client: Client) -> None:
        answer = await client.call(method=b"PUT", body=counted() if streamed else bytes(BIG * 5))
        assert (answer.status, answer.body) == (413, b"no")
        assert (client.channel.idle, client.channel.busy) == (0, 0)
        assert taken[0] < 10_000

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        peer.rest()

    with Server(script) as server:
        flavour.run(server.port, scenario)


def test_an_answer_before_the_upload_ends_is_read_though_the_server_hangs_up(flavour: Flavour) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        peer.close()
        answered.append(1)

    def late() -> Iterator[bytes]:
        yield b"x"
        eventually(lambda: answered)
        yield from pieces(500, 65536)

    answered: list[int] = []

    async def scenario(client: Client) -> None:
        answer = await client.call(method=b"PUT", body=late())
        assert (answer.status, answer.body) == (413, b"no")
        assert (client.channel.idle, client.channel.busy) == (0, 0)

    with Server(script) as server:
        flavour.run(server.port, scenario)


def test_a_reader_that_lags_holds_the_sender_back(flavour: Flavour) -> None:
    sent = [0]
    total = 200_000_000

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(HEAD + b"Content-Length: %d\r\n\r\n" % total)
        peer.sock.settimeout(0.3)
        try:
            while sent[0] < total:
                sent[0] += peer.sock.send(bytes(1_000_000))
        except TimeoutError:
            stalled.append(sent[0])
        peer.sock.settimeout(None)
        peer.rest()

    stalled: list[int] = []

    async def scenario(client: Client) -> None:
        reply = await client.send(Request(b"GET", b"/", [(b"Host", b"a")]))
        await client.first(reply)
        if flavour.sync:
            eventually(lambda: stalled)
        else:
            await eventually_async(lambda: stalled)
        await client.close(reply)

    with Server(script) as server:
        flavour.run(server.port, scenario)
    assert stalled[0] < 30_000_000


def echoing(head: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(head + b"first")
        while data := peer.sock.recv(65536):
            peer.send(data)

    return script


@pytest.mark.parametrize(
    ("method", "headers", "answer"),
    [
        (b"GET", [(b"Connection", b"upgrade"), (b"Upgrade", b"chat")],
         b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n"),
        (b"CONNECT", [], b"HTTP/1.1 200 Connected\r\nContent-Length: 3\r\n\r\n"),
        (b"CONNECT", [], b"HTTP/1.1 100 Wait\r\n\r\nHTTP/1.1 200 Connected\r\n\r\n"),
    ],
)  # fmt: skip
def test_a_connection_is_handed_over(
    flavour: Flavour, method: bytes, headers: list[tuple[bytes, bytes]], answer: bytes
) -> None:
    async def scenario(client: Client) -> None:
        reply = await client.send(Request(method, b"/", [(b"Host", b"a"), *headers]))
        stream = reply.network_stream
        assert await client.pieces(reply) == []
        assert await client.waited(stream.read(3)) == b"fir"
        assert await client.waited(stream.read(100)) == b"st"
        await client.waited(stream.write(b"HTTP/1.1 is over"))
        assert await client.waited(stream.read(100)) == b"HTTP/1.1 is over"
        with pytest.raises(WireError) as caught:
            await client.waited(stream.read(100, 0.01))
        assert caught.value.failure is Failure.TIMEOUT
        await client.waited(stream.write(b"still there"))
        assert await client.waited(stream.read(100)) == b"still there"
        assert stream.get_extra_info("server_addr")[0] == "127.0.0.1"
        assert stream.get_extra_info("unheard-of") is None
        await client.close(reply)
        assert (client.channel.idle, client.channel.busy) == (0, 0)
        with pytest.raises(WireError):
            await client.waited(stream.write(b"x"))

    with Server(echoing(answer)) as server:
        flavour.run(server.port, scenario)


def test_a_refused_upgrade_is_a_plain_response(flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        answer = await client.call(headers=[(b"Connection", b"upgrade"), (b"Upgrade", b"chat")])
        assert (answer.status, answer.body) == (200, b"ok")
        assert client.channel.idle == 1

    with Server(answering()) as server:
        flavour.run(server.port, scenario)


def test_the_end_of_a_connection_handed_over_reads_as_nothing(flavour: Flavour) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nbye")
        peer.close()

    async def scenario(client: Client) -> None:
        reply = await client.send(Request(b"GET", b"/", [(b"Connection", b"upgrade"), (b"Upgrade", b"chat")]))
        assert await client.waited(reply.network_stream.read(10, 5)) == b"bye"
        assert await client.waited(reply.network_stream.read(10, 5)) == b""
        await client.close(reply)

    with Server(script) as server:
        flavour.run(server.port, scenario)


def test_a_call_may_write_without_any_bound(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.call(timing=Timing())).body == b"ok"

    with Server(answering()) as server:
        any_flavour.run(server.port, scenario)
