"""TLS of the mesh's own: what works in the clear works so too, and nothing reaches whom it is not for."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from meshlib.call.effects import Failure
from meshlib.identity.outgoing import PeerContexts
from meshlib.identity.verifying import OutgoingSocket
from meshlib.plan.peers import PeerTls
from meshlib.wire.message import Timing, WireError
from tests.support import eventually
from tests.support.authority import CLIENT, Authority, Issued, self_signed
from tests.unit.identity.hands import CALLER, HandIdentity, material
from tests.wire.conftest import PATIENT, Client, Flavour, soon
from tests.wire.secured import ROOT, SERVICE, Endpoint, contexts, mutual, secured, server_context
from tests.wire.server import OK, Peer, Script, Server

LARGE = b"0123456789abcdef" * 131_072


def body_of(client: Client, pieces: list[bytes]) -> Any:
    """A streamed body of the kind the channel takes."""

    async def later() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    def now() -> Iterator[bytes]:
        yield from pieces

    return now() if client._sync else later()


async def refused(client: Client, failure: Failure = Failure.TLS, timing: Timing = PATIENT) -> str:
    """What the error says of a call that fails with nothing sent."""
    with pytest.raises(WireError) as caught:
        await client.call(timing=timing)
    assert caught.value.failure is failure
    assert not caught.value.sent
    assert (client.channel.idle, client.channel.busy) == (0, 0)
    return str(caught.value)


def test_a_connection_carries_one_request_after_the_other_and_shows_who_we_are(tls_flavour: Flavour) -> None:
    endpoint = Endpoint()

    async def scenario(client: Client) -> None:
        for _ in range(5):
            answer = await client.call()
            assert (answer.status, answer.body) == (200, b"ok")
        assert (client.channel.idle, client.channel.busy) == (1, 0)

    with Server(endpoint) as server:
        tls_flavour.run(server.port, scenario, secured=secured())
        assert server.connections == 1
    assert endpoint.callers[0]["subjectAltName"] == (("URI", CALLER),)


def test_tls_1_2_is_spoken_where_no_other_is(tls_flavour: Flavour) -> None:
    endpoint = Endpoint(server_context(maximum_version=ssl.TLSVersion.TLSv1_2))

    async def scenario(client: Client) -> None:
        for _ in range(3):
            assert (await client.call()).body == b"ok"

    with Server(endpoint) as server:
        tls_flavour.run(server.port, scenario, secured=secured())
        assert server.connections == 1


@pytest.mark.slow
def test_large_bodies_go_both_ways(tls_flavour: Flavour) -> None:
    taken: list[bytes] = []

    def script(peer: Peer) -> None:
        while peer.head():
            taken.append(peer.exactly(len(LARGE)))
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE) + LARGE)

    async def scenario(client: Client) -> None:
        for _ in range(2):
            assert (await client.call(method=b"POST", body=LARGE)).body == LARGE
        assert client.channel.idle == 1

    with Server(Endpoint(script=script)) as server:
        tls_flavour.run(server.port, scenario, secured=secured())
        assert server.connections == 1
    assert taken == [LARGE, LARGE]


def test_streamed_bodies_go_both_ways(tls_flavour: Flavour) -> None:
    pieces = [b"a" * 70_000, b"b", b"c" * 300_000]
    length = sum(map(len, pieces))
    taken: list[bytes] = []

    def script(peer: Peer) -> None:
        while peer.head():
            taken.append(peer.exactly(length))
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in pieces:
                peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            peer.send(b"0\r\n\r\n")

    async def scenario(client: Client) -> None:
        headers = [(b"Content-Length", b"%d" % length)]
        for _ in range(2):
            answer = await client.call(method=b"POST", headers=headers, body=body_of(client, pieces))
            assert answer.body == b"".join(pieces)
        assert client.channel.idle == 1

    with Server(Endpoint(script=script)) as server:
        tls_flavour.run(server.port, scenario, secured=secured())
    assert taken == [b"".join(pieces)] * 2


def test_an_early_answer_ends_the_upload(tls_flavour: Flavour) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        assert server.released.wait(20)

    async def scenario(client: Client) -> None:
        headers = [(b"Content-Length", b"%d" % (len(LARGE) * 64))]
        answer = await client.call(method=b"POST", headers=headers, body=body_of(client, [LARGE] * 64))
        assert (answer.status, answer.body) == (413, b"no")
        assert (client.channel.idle, client.channel.busy) == (0, 0)

    with Server(Endpoint(script=script)) as server:
        tls_flavour.run(server.port, scenario, secured=secured())


def test_a_body_without_a_length_ends_with_a_farewell(tls_flavour: Flavour) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        peer.sock.unwrap()  # type: ignore[attr-defined]  # it is wrapped

    async def scenario(client: Client) -> None:
        assert (await client.call()).body == b"all of it"

    with Server(Endpoint(script=script)) as server:
        tls_flavour.run(server.port, scenario, secured=secured())


def test_a_body_without_a_length_that_is_cut_short_is_an_error(tls_flavour: Flavour) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\npart of it")
        peer.close()

    async def scenario(client: Client) -> None:
        with pytest.raises(WireError) as caught:
            await client.call()
        assert caught.value.failure in {Failure.RESET, Failure.PROTOCOL}

    with Server(Endpoint(script=script)) as server:
        tls_flavour.run(server.port, scenario, secured=secured())


def test_a_connection_closed_while_idle_is_not_used_again(tls_flavour: Flavour) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        peer.close()

    async def scenario(client: Client) -> None:
        for number in (1, 2):
            assert (await client.call()).body == b"ok"
            eventually(lambda number=number: len(closed) == number)

    closed: list[int] = []

    def noting(peer: Peer) -> None:
        script(peer)
        closed.append(peer.number)

    with Server(Endpoint(script=noting)) as server:
        tls_flavour.run(server.port, scenario, secured=secured())
        assert server.connections == 2


# What stands in the way of a handshake


@pytest.mark.slow
def test_a_server_that_never_answers_the_handshake_is_left_in_time(tls_flavour: Flavour) -> None:
    def script(peer: Peer) -> None:
        peer.rest()

    async def scenario(client: Client) -> None:
        begun = time.monotonic()
        await refused(client, Failure.CONNECT_TIMEOUT, Timing(connect=0.1))
        await refused(client, Failure.CONNECT_TIMEOUT, Timing(connect=10, head_by=soon(0.1)))
        assert time.monotonic() - begun < 5

    with Server(script) as server:
        tls_flavour.run(server.port, scenario, secured=secured())


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"220 mail\r\n"])
def test_a_server_that_speaks_in_the_clear_is_told_so(tls_flavour: Flavour, says: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(65536)
        peer.send(says)
        peer.rest()

    async def scenario(client: Client) -> None:
        assert "doesn't speak TLS" in await refused(client)

    with Server(script) as server:
        tls_flavour.run(server.port, scenario, secured=secured())


@pytest.mark.parametrize("end", [Peer.reset, Peer.close])
def test_a_server_that_hangs_up_during_the_handshake(tls_flavour: Flavour, end: Script) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(65536)
        end(peer)

    async def scenario(client: Client) -> None:
        assert "hung up during the TLS handshake" in await refused(client)

    with Server(script) as server:
        tls_flavour.run(server.port, scenario, secured=secured())


def test_a_server_that_hangs_up_after_the_handshake_may_have_refused_us(tls_flavour: Flavour) -> None:
    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.head()
            peer.send(OK)
            peer.head()
        peer.close()

    async def scenario(client: Client) -> None:
        await client.call()
        for whose in (False, True):  # on the connection that has carried a request it is no certificate's fault
            with pytest.raises(WireError) as caught:
                await client.call(method=b"POST", body=b"order")
            assert caught.value.failure is Failure.RESET
            assert ("if it refused our certificate, its log says why" in str(caught.value)) is whose

    with Server(Endpoint(script=script)) as server:
        tls_flavour.run(server.port, scenario, secured=secured())


def test_a_port_where_nobody_listens_is_no_matter_of_tls(tls_flavour: Flavour) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))

        async def scenario(client: Client) -> None:
            await refused(client, Failure.CONNECT)

        tls_flavour.run(bound.getsockname()[1], scenario, secured=secured())


def test_without_a_certificate_of_ours_nothing_is_opened(tls_flavour: Flavour) -> None:
    made = PeerContexts(HandIdentity())

    async def scenario(client: Client) -> None:
        assert "no certificate yet from files:///run/identity" in await refused(client)

    with Server(Endpoint()) as server:
        tls_flavour.run(server.port, scenario, secured=lambda: made.get(mutual()))
        assert server.connections == 0


# Whom nothing may reach


OTHER_ROOT = Authority("other")

WRONG: dict[str, tuple[Issued, str]] = {
    "another service": (ROOT.issue("spiffe://mesh.test/ns/default/dc/dc1/svc/ratings"), f"expected {SERVICE}"),
    "another trust domain": (ROOT.issue(SERVICE.replace("mesh.test", "mesh.example")), f"expected {SERVICE}"),
    "expired": (ROOT.issue(SERVICE, begins=-7200, ends=-3600), "expired"),
    "not yet valid": (ROOT.issue(SERVICE, begins=3600, ends=7200), "not yet valid"),
    "of another root": (OTHER_ROOT.issue(SERVICE), "certificate was refused"),
    "longer": (ROOT.issue(SERVICE + "-canary"), f"expected {SERVICE}"),
    "a path beneath": (ROOT.issue(SERVICE + "/x"), f"expected {SERVICE}"),
    "shorter": (ROOT.issue(SERVICE[:-1]), f"expected {SERVICE}"),
    "two URI SANs": (ROOT.issue(SERVICE, "spiffe://mesh.test/ns/default/dc/dc1/svc/ratings"), "2 URI SANs"),
    "two URI SANs, the right one last": (ROOT.issue("https://mesh.test/", SERVICE), "2 URI SANs"),
    "the same one twice": (ROOT.issue(SERVICE, SERVICE), "2 URI SANs"),
    "a wildcard": (ROOT.issue("spiffe://mesh.test/ns/default/dc/dc1/svc/*"), f"expected {SERVICE}"),
    "a NUL": (ROOT.issue(SERVICE + "\0.evil"), r"\x00"),
    "another case": (ROOT.issue(SERVICE.replace("reviews", "Reviews")), "Reviews"),
    "another case of the scheme": (ROOT.issue(SERVICE.replace("spiffe", "SPIFFE")), "SPIFFE"),
    "a slash at the end": (ROOT.issue(SERVICE + "/"), "reviews/"),
    "a DNS name": (ROOT.issue(names=["reviews.default.svc.cluster.local"]), "reviews.default.svc.cluster.local"),
    "no name": (ROOT.issue(), "nobody by name"),
    "for clients only": (ROOT.issue(SERVICE, usage=[CLIENT]), "purpose"),
    "self-signed": (self_signed(SERVICE), "self-signed"),
}


FOR_ALL = {"another service", "of another root", "two URI SANs", "no name"}
"""Tried by the quick part of the tests, too."""


@pytest.mark.parametrize(
    "wrong", [pytest.param(name, marks=() if name in FOR_ALL else pytest.mark.slow) for name in WRONG]
)
def test_a_wrong_peer_gets_no_byte_of_a_request(tls_flavour: Flavour, wrong: str) -> None:
    issued, reason = WRONG[wrong]
    endpoint = Endpoint(server_context(issued))

    async def scenario(client: Client) -> None:
        said = await refused(client)
        assert said.startswith(f"127.0.0.1:{client.channel._port}: its certificate ")
        assert reason in said

    with Server(endpoint) as server:
        tls_flavour.run(server.port, scenario, secured=secured())
        assert server.connections == 1
    assert b"".join(endpoint.heard) == b""


def test_an_endpoint_of_no_known_identity_is_not_even_dialled(tls_flavour: Flavour) -> None:
    made, nobody = contexts(), PeerTls("ISTIO_MUTUAL", "reviews")

    async def scenario(client: Client) -> None:
        assert "no identity is known for this endpoint" in await refused(client)

    with Server(Endpoint()) as server:
        tls_flavour.run(server.port, scenario, secured=lambda: made.get(nobody))
        assert server.connections == 0


def test_a_server_that_refuses_our_certificate_is_quoted(tls_flavour: Flavour) -> None:
    # By TLS 1.3 it may do so when we have sent a request already, which it never gets to see.
    endpoint = Endpoint(server_context(ROOT.issue(SERVICE), root=OTHER_ROOT))

    async def scenario(client: Client) -> None:
        with pytest.raises(WireError) as caught:
            await client.call()
        assert "unknown ca" in str(caught.value)

    with Server(endpoint) as server:
        tls_flavour.run(server.port, scenario, secured=secured())
    assert len(endpoint.refused) == 1
    assert endpoint.heard == []


def test_a_ticket_that_comes_to_an_idle_connection_leaves_it_fit_for_use_and_data_does_not() -> None:
    ours, theirs = socket.socketpair()
    context = contexts().get(mutual()).context
    assert context is not None
    with ours, theirs, ThreadPoolExecutor(1) as threads:
        serving = threads.submit(server_context().wrap_socket, theirs, server_side=True)
        with context.wrap_socket(ours, server_hostname="reviews") as client, serving.result(10) as server:
            assert isinstance(client, OutgoingSocket)
            client.setblocking(False)
            assert select.select([client], [], [], 10)[0]
            assert client.silent()
            server.send(b"unasked")
            assert select.select([client], [], [], 10)[0]
            assert not client.silent()


# What changes while connections are open


@pytest.mark.slow
def test_a_new_certificate_is_shown_on_new_connections_and_leaves_the_old_ones_for_a_while(
    tls_flavour: Flavour,
) -> None:
    identity = HandIdentity(material(ROOT.issue(CALLER), ROOT))
    made = PeerContexts(identity)
    endpoint = Endpoint()

    async def scenario(client: Client) -> None:
        await client.call()
        identity.give(material(ROOT.issue(CALLER + "-new"), ROOT))
        await client.call()
        assert len(endpoint.callers) == 1
        await client.call(headers=[(b"Connection", b"close")])
        await client.call()
        assert [caller["subjectAltName"][0][1] for caller in endpoint.callers] == [CALLER, CALLER + "-new"]

    with Server(endpoint) as server:
        tls_flavour.run(server.port, scenario, secured=lambda: made.get(mutual()))


def test_a_connection_made_under_a_root_that_was_withdrawn_is_not_used_again(tls_flavour: Flavour) -> None:
    older, newer = Authority("older"), Authority("newer")
    identity = HandIdentity(material(older.issue(CALLER), older, newer))
    made = PeerContexts(identity)
    endpoint = Endpoint(server_context(older.issue(SERVICE), root=older))

    async def scenario(client: Client) -> None:
        await client.call()
        identity.give(material(newer.issue(CALLER), newer))
        assert "certificate was refused" in await refused(client)

    with Server(endpoint) as server:
        tls_flavour.run(server.port, scenario, secured=lambda: made.get(mutual()))
        assert server.connections == 2
    assert len(endpoint.heard) == 2  # the first request, and the end


# TLS without an identity of the mesh


@pytest.mark.slow
def test_a_certificate_for_the_server_name_is_enough_where_nobody_is_named(tls_flavour: Flavour, tmp_path: Any) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(ROOT.roots)
    context = server_context(ROOT.issue(names=["api.test"]), verify_mode=ssl.CERT_NONE)
    made = PeerContexts(None)

    async def scenario(client: Client) -> None:
        assert (await client.call()).body == b"ok"

    async def wrong(client: Client) -> None:
        assert "api.example" in await refused(client)

    with Server(Endpoint(context)) as server:
        for name, outcome in (("api.test", scenario), ("api.example", wrong)):
            peer = PeerTls("SIMPLE", name, roots=str(roots))
            tls_flavour.run(server.port, outcome, secured=lambda peer=peer: made.get(peer))  # type: ignore[misc]
