"""Connections: kept, used again, given up, and never leaked."""

from __future__ import annotations

import asyncio
import socket
import time

import anyio
import pytest

from meshlib.call.effects import Failure
from meshlib.wire.channel import AsyncChannel
from meshlib.wire.message import Request, Timing, WireError
from tests.support import eventually, eventually_async
from tests.wire.conftest import PATIENT, Client, Flavour, soon
from tests.wire.server import OK, Peer, Server, answering


def test_one_connection_carries_one_request_after_the_other(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(5):
            answer = await client.call()
            assert (answer.status, answer.reason, answer.version, answer.body) == (200, b"OK", b"HTTP/1.1", b"ok")
        assert (client.channel.idle, client.channel.busy) == (1, 0)

    with Server(answering()) as server:
        any_flavour.run(server.port, scenario)
        assert server.connections == 1


def test_the_request_is_written_as_it_was_given(any_flavour: Flavour) -> None:
    heads: list[bytes] = []

    def script(peer: Peer) -> None:
        while head := peer.head():
            heads.append(head)
            peer.send(OK)

    async def scenario(client: Client) -> None:
        await client.call(b"/a?b=c%20d", headers=[(b"X-Mixed-Case", b"1"), (b"x-many", b"a"), (b"x-many", b"b")])

    with Server(script) as server:
        any_flavour.run(server.port, scenario)
    lines = heads[0].split(b"\r\n")
    assert lines[0] == b"GET /a?b=c%20d HTTP/1.1"
    assert lines[1:] == [b"Host: reviews", b"X-Mixed-Case: 1", b"x-many: a", b"x-many: b"]


def test_a_server_that_says_close_gets_no_second_request(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        await client.call()
        assert client.channel.idle == 0
        await client.call()

    with Server(answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")) as server:
        any_flavour.run(server.port, scenario)
        assert server.connections == 2


def test_a_request_that_says_close_has_its_connection_closed(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        await client.call(headers=[(b"Connection", b"close")])
        assert client.channel.idle == 0

    with Server(answering()) as server:
        any_flavour.run(server.port, scenario)


def test_an_http_1_0_server_is_asked_on_a_new_connection_each_time(flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        answer = await client.call()
        assert (answer.version, answer.body) == (b"HTTP/1.0", b"ok")
        assert client.channel.idle == 0

    with Server(answering(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")) as server:
        flavour.run(server.port, scenario)


def test_a_connection_carries_no_more_requests_than_it_may(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(5):
            await client.call()

    with Server(answering()) as server:
        any_flavour.run(server.port, scenario, max_requests=2)
        assert server.connections == 3


def test_a_connection_idle_for_too_long_is_not_used_again(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        await client.call()
        time.sleep(0.02)  # noqa: ASYNC251 - the loop needn't run: the age is looked at on use
        await client.call()

    with Server(answering()) as server:
        any_flavour.run(server.port, scenario, idle_timeout=0.01)
        assert server.connections == 2


def test_the_connection_used_last_is_used_first(flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        request = Request(b"GET", b"/", [(b"Host", b"a")])
        replies = [await client.send(request) for _ in range(3)]
        assert (client.channel.idle, client.channel.busy) == (0, 3)
        for reply in replies:
            release.append(1)
            await client.pieces(reply)
        assert (client.channel.idle, client.channel.busy) == (3, 0)
        assert b"".join(await client.pieces(await client.send(request))) == b"3"

    release: list[int] = []

    def script(peer: Peer) -> None:
        while peer.head():
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
            eventually(lambda: len(release) >= peer.number)
            peer.send(b"%d" % peer.number)

    with Server(script) as server:
        flavour.run(server.port, scenario)


def test_a_connection_that_died_while_idle_is_replaced_without_a_word(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        for number in range(1, 4):
            await client.call(method=b"POST", body=b"x")
            eventually(lambda expected=number: closed[0] >= expected)  # type: ignore[misc]

    closed = [0]

    def script(peer: Peer) -> None:
        head = peer.head()
        if not head:
            return
        peer.exactly(1)
        peer.send(OK)
        peer.close()
        closed[0] += 1

    with Server(script) as server:
        any_flavour.run(server.port, scenario)
        assert server.connections == 3


def test_a_connection_on_which_the_server_spoke_unasked_is_not_used_again(flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.call()).body == b"ok"
        spoke.append(1)
        eventually(lambda: len(spoke) == 2)
        assert (await client.call()).body == b"ok"

    spoke: list[int] = []

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        if peer.number == 1:
            eventually(lambda: spoke)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            spoke.append(2)
        peer.head()

    with Server(script) as server:
        flavour.run(server.port, scenario)
        assert server.connections == 2


def test_bytes_after_a_response_cost_the_connection_but_not_the_response(flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.call()).body == b"ok"
        assert client.channel.idle == 0

    with Server(answering(OK + b"more")) as server:
        flavour.run(server.port, scenario)


def dying_on_the_second(peer: Peer) -> None:
    """Answer once, then read a request and hang up without a byte of an answer."""
    if peer.head():
        peer.send(OK)
    head = peer.head()
    if b"POST" in head:
        peer.exactly(1)
    if peer.number == 1:
        peer.reset()
    elif head:
        peer.send(OK)


def test_a_request_safe_to_repeat_survives_the_keep_alive_race(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        await client.call()
        assert (await client.call(resend=True)).body == b"ok"

    with Server(dying_on_the_second) as server:
        any_flavour.run(server.port, scenario)
        assert server.connections == 2


def test_a_request_not_safe_to_repeat_is_written_once_whatever_happens(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        await client.call()
        with pytest.raises(WireError) as caught:
            await client.call(method=b"POST", body=b"x")
        error = caught.value
        assert error.failure is Failure.RESET
        assert (error.sent, error.received, error.reused) == (True, False, True)

    with Server(dying_on_the_second) as server:
        any_flavour.run(server.port, scenario)
        assert server.connections == 1


def test_a_fresh_connection_that_dies_is_not_retried(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        with pytest.raises(WireError) as caught:
            await client.call(resend=True)
        assert caught.value.failure is Failure.RESET
        assert (caught.value.sent, caught.value.reused) == (True, False)
        assert (client.channel.idle, client.channel.busy) == (0, 0)

    def script(peer: Peer) -> None:
        peer.head()
        peer.close()

    with Server(script) as server:
        any_flavour.run(server.port, scenario)
        assert server.connections == 1


def test_a_refused_connection_is_a_connect_failure_with_its_cause(any_flavour: Flavour) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def scenario(client: Client) -> None:
        with pytest.raises(WireError, match=f"127.0.0.1:{port}") as caught:
            await client.call()
        assert caught.value.failure is Failure.CONNECT
        assert not caught.value.sent
        assert caught.value.__cause__ is not None
        assert client.channel.busy == 0

    any_flavour.run(port, scenario)


def test_a_connection_that_is_not_accepted_in_time_is_a_connect_timeout(any_flavour: Flavour) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            # A full backlog leaves the next SYN unanswered.
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)

        async def scenario(client: Client) -> None:
            with pytest.raises(WireError) as caught:
                await client.call(timing=Timing(connect=0.05))
            assert caught.value.failure is Failure.CONNECT_TIMEOUT
            assert not caught.value.sent
            with pytest.raises(WireError) as caught:
                await client.call(timing=Timing(connect=10, head_by=soon()))
            assert caught.value.failure is Failure.CONNECT_TIMEOUT
            assert client.channel.busy == 0

        try:
            any_flavour.run(port, scenario)
        finally:
            for filler in fillers:
                filler.close()


def test_every_address_of_a_name_is_tried(flavour: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = listener.getsockname()[1]
    real = socket.getaddrinfo

    with Server(answering()) as server:

        def resolve(host: object, port: int, *args: object, **kwargs: object) -> list[object]:
            if host not in {"reviews.internal", b"reviews.internal"}:
                return real(host, port, *args, **kwargs)  # type: ignore[arg-type,return-value]
            if kwargs.get("flags", 0) & socket.AI_NUMERICHOST:
                raise socket.gaierror(socket.EAI_NONAME, "not numeric")
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, ("127.0.0.1", dead)), (*kind, ("127.0.0.1", server.port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

        async def scenario(client: Client) -> None:
            client.channel._host = "reviews.internal"
            assert (await client.call()).body == b"ok"

        flavour.run(server.port, scenario)


def test_a_closed_channel_closes_idle_connections_now_and_busy_ones_when_they_end(any_flavour: Flavour) -> None:
    gone: list[int] = []
    release: list[int] = []

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        if peer.number == 1:
            eventually(lambda: release)
        peer.send(b"ok")
        peer.head()
        gone.append(peer.number)

    async def scenario(client: Client) -> None:
        request = Request(b"GET", b"/", [(b"Host", b"a")])
        slow = await client.send(request)
        await client.call()
        client.channel.close()
        assert client.channel.busy == 1
        release.append(1)
        assert b"".join(await client.pieces(slow)) == b"ok"
        await client.close(slow)
        assert (client.channel.idle, client.channel.busy) == (0, 0) or any_flavour.fallback

    with Server(script) as server:
        any_flavour.run(server.port, scenario)
        eventually(lambda: sorted(gone) == [1, 2])


# On trio httpcore leaves the innermost of its own async generators to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*httpcore.*garbage collected before it had been exhausted")
@pytest.mark.filterwarnings("ignore:Exception ignored in. .*async_generator:pytest.PytestUnraisableExceptionWarning")
def test_a_body_closed_half_way_takes_the_connection_with_it(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        reply = await client.send(Request(b"GET", b"/", [(b"Host", b"a")]))
        assert await client.first(reply) == b"ab"
        await client.close(reply)
        assert (client.channel.idle, client.channel.busy) == (0, 0)

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
        assert peer.rest() == b""

    with Server(script) as server:
        any_flavour.run(server.port, scenario)


def test_a_response_dropped_unread_warns_and_closes_its_connection(any_flavour: Flavour) -> None:
    async def scenario(client: Client) -> None:
        replies = [await client.send(Request(b"GET", b"/", [(b"Host", b"a")]))]
        with pytest.warns(ResourceWarning, match="neither read to its end nor closed"):
            replies.clear()
        if any_flavour.sync:
            assert client.channel.busy == 0
        else:
            await eventually_async(lambda: client.channel.busy == 0)

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
        peer.rest()

    with Server(script) as server:
        any_flavour.run(server.port, scenario)


@pytest.mark.parametrize("name", ["asyncio", "trio", "anyio-asyncio", "fallback-asyncio", "fallback-trio"])
@pytest.mark.parametrize("stage", ["head", "body", "upload"])
def test_a_cancelled_call_closes_its_connection_and_lets_the_cancellation_through(name: str, stage: str) -> None:
    flavour = Flavour(name)

    def script(peer: Peer) -> None:
        peer.head()
        if stage == "body":
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
        if stage == "upload":
            peer.sock.recv(1)
            eventually(lambda: cancelled)
        peer.rest()
        closed.append(1)

    closed: list[int] = []
    cancelled: list[int] = []

    async def scenario(client: Client) -> None:
        async def call() -> None:
            body = (bytes(65536) for _ in range(1000)) if stage == "upload" else None
            await client.call(method=b"POST", body=body, timing=Timing(connect=10))

        with anyio.move_on_after(0.05) as scope:
            await call()
        assert scope.cancelled_caught
        cancelled.append(1)
        await eventually_async(lambda: client.channel.busy == 0)
        assert client.channel.idle == 0

    with Server(script) as server:
        flavour.run(server.port, scenario)
        eventually(lambda: closed)


def test_a_cancelled_task_sees_its_own_cancellation() -> None:
    async def main(port: int) -> None:
        channel = AsyncChannel("127.0.0.1", port)
        task = asyncio.create_task(channel.send(Request(b"GET", b"/", [(b"Host", b"a")]), PATIENT))
        await eventually_async(lambda: asked)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        assert channel.busy == 0
        await asyncio.sleep(0)

    asked: list[int] = []

    def script(peer: Peer) -> None:
        peer.head()
        asked.append(1)
        peer.rest()

    with Server(script) as server:
        asyncio.run(main(server.port))


def test_a_cancellation_that_comes_after_the_response_leaves_the_next_user_of_the_connection_alone() -> None:
    async def main(port: int) -> None:
        channel = AsyncChannel("127.0.0.1", port)
        request = Request(b"GET", b"/", [(b"Host", b"a")])
        await (await channel.send(request, PATIENT)).body.aclose()
        first = asyncio.create_task(channel.send(request, PATIENT))
        await eventually_async(lambda: channel.idle == 1 or first.done())
        first.cancel()
        second = await channel.send(request, PATIENT)
        assert b"".join([piece async for piece in second.body]) == b"ok"
        await asyncio.gather(first, return_exceptions=True)
        channel.close()
        await asyncio.sleep(0)

    with Server(answering()) as server:
        asyncio.run(main(server.port))


@pytest.mark.parametrize("turns", range(12))
def test_a_call_cancelled_at_any_turn_of_the_loop_leaves_no_connection_at_work(turns: int) -> None:
    async def main() -> None:
        channel = AsyncChannel("127.0.0.1", server.port)
        call = asyncio.ensure_future(channel.send(Request(b"GET", b"/", [(b"Host", b"reviews")], None), PATIENT))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        for reply in await asyncio.gather(call, return_exceptions=True):
            if not isinstance(reply, BaseException):
                await reply.body.aclose()
        for _ in range(3):
            await asyncio.sleep(0)
        assert channel.busy == 0
        channel.close()
        await asyncio.sleep(0)

    with Server(answering(OK)) as server:
        asyncio.run(main())
