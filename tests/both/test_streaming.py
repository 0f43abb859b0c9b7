"""Bodies that go and come in pieces, however large."""

from __future__ import annotations

import itertools
import resource
import sys
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from tests.both.conftest import Caller, World
from tests.both.servers import Seen, answer

PIECE = b"x" * 65536
MEGABYTE = 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def pieces(size: int) -> Iterator[bytes]:
    return itertools.repeat(PIECE, size // len(PIECE))


def test_a_body_of_unknown_length_is_sent_in_chunks(world: World) -> None:
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        await client.post("http://reviews/", content=client.body(iter([b"one", b"", b"two"])))

    world.run(scenario)
    (seen,) = reviews.seen
    assert (seen.body, seen.headers["transfer-encoding"]) == (b"onetwo", "chunked")
    assert "content-length" not in seen.headers


def test_a_body_of_known_length_is_sent_as_it_is(world: World) -> None:
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        body = client.body(iter([b"one", b"two"]))
        await client.post("http://reviews/", content=body, headers={"content-length": "6"})

    world.run(scenario)
    (seen,) = reviews.seen
    assert (seen.body, seen.headers["content-length"]) == (b"onetwo", "6")
    assert "transfer-encoding" not in seen.headers


def test_files_and_fields_are_uploaded(world: World) -> None:
    reviews = world.serve("reviews", answer())

    async def scenario(client: Caller) -> None:
        files = {"photo": ("photo.png", b"\x89PNG" * 50_000, "image/png")}
        await client.post("http://reviews/", files=files, data={"stars": "5"})

    world.run(scenario)
    (seen,) = reviews.seen
    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="stars"\r\n\r\n5\r\n' in seen.body
    assert b"\x89PNG" * 50_000 in seen.body


@pytest.mark.parametrize("framing", ["chunks", "length", "until it closes"])
def test_a_body_comes_in_pieces_however_it_is_framed(world: World, framing: str) -> None:
    heads = {
        "chunks": CHUNKED,
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n",
        "until it closes": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    }

    def handler(seen: Seen) -> bytes | None:
        if framing == "chunks":
            return heads[framing] + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
        seen.peer.send(heads[framing] + b"onetwo")
        if framing == "until it closes":
            seen.peer.close()
            return None
        return b""

    world.serve("reviews", handler)

    async def scenario(client: Caller) -> None:
        async with client.stream("GET", "http://reviews/") as reply:
            assert b"".join([piece async for piece in client.pieces(reply)]) == b"onetwo"
            assert world.in_flight() == 0

    world.run(scenario)


def test_a_piece_is_handed_over_before_the_next_one_is_sent(world: World) -> None:
    arrived = threading.Event()

    def handler(seen: Seen) -> bytes:
        seen.peer.send(CHUNKED + b"4\r\none\n\r\n")
        assert arrived.wait(10)
        return b"4\r\ntwo\n\r\n0\r\n\r\n"

    world.serve("reviews", handler)

    async def scenario(client: Caller) -> None:
        got = b""
        async with client.stream("GET", "http://reviews/") as reply:
            async for piece in client.pieces(reply):
                got += piece
                arrived.set()
        assert got == b"one\ntwo\n"

    world.run(scenario)


def pour(seen: Seen) -> bytes:
    """Answer with as large a body as was asked for, or with the size of what came."""
    if seen.method == "POST":
        return answer(seen.headers["content-length"].encode())
    size = int(seen.target.removeprefix("/"))
    seen.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    for piece in pieces(size):
        seen.peer.send(piece)
    return b""


async def there_and_back(client: Caller, size: int) -> None:
    headers = {"content-length": str(size)}
    reply = await client.post("http://reviews/", content=client.body(pieces(size)), headers=headers)
    assert reply.text == str(size)
    got = 0
    async with client.stream("GET", f"http://reviews/{size}") as reply:
        async for piece in client.pieces(reply):
            got += len(piece)
    assert got == size


def test_a_large_body_takes_little_memory_either_way(world: World) -> None:
    world.serve("reviews", pour).keeps_bodies = False

    async def scenario(client: Caller) -> None:
        await there_and_back(client, len(PIECE))
        tracemalloc.start()
        try:
            await there_and_back(client, 20 * MEGABYTE)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * MEGABYTE

    world.run(scenario)


@pytest.mark.slow
def test_half_a_gigabyte_takes_little_memory_either_way(world: World) -> None:
    world.serve("reviews", pour).keeps_bodies = False
    in_bytes = 1 if sys.platform == "darwin" else 1024

    async def scenario(client: Caller) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await there_and_back(client, 500 * MEGABYTE)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown * in_bytes < 64 * MEGABYTE

    world.run(scenario)
