"""Bodies that are read before the application does, and that it reads once more."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest

from meshlib.inbound.early import EarlyInput, EarlyReceive
from meshlib.inbound.effects import EarlyBody, ReadBody


def receiver(*messages: dict[str, Any]) -> Any:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    return receive


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


END = {"type": "http.disconnect"}


def test_of_asgi_no_more_is_received_than_is_wanted_and_all_of_it_comes_again() -> None:
    messages = [part(b"abc", more=True), part(b"def", more=True), part(b"ghi", more=False), END]

    async def serve() -> list[Any]:
        early = EarlyReceive(receiver(*messages))
        found: list[Any] = [await early.read(ReadBody(4))]
        found.append(len(early._messages))
        found.append(await early.read(ReadBody(2)))
        found += [await early.read(ReadBody(most)) for most in (100, 9)]
        return [*found, *[await early.receive() for _ in messages]]

    assert asyncio.run(serve()) == [
        EarlyBody(b"abcd", True), 2, EarlyBody(b"ab", True), *[EarlyBody(b"abcdefghi", False)] * 2, *messages,
    ]  # fmt: skip


def test_of_asgi_a_caller_that_goes_away_left_a_part() -> None:
    async def serve() -> list[Any]:
        early = EarlyReceive(receiver(part(b"abc", more=True), END))
        return [await early.read(ReadBody(10)), await early.receive(), await early.receive()]

    assert asyncio.run(serve()) == [EarlyBody(b"abc", True), part(b"abc", more=True), END]


class Socket(io.RawIOBase):
    """A connection on which nothing comes behind the body: to read on would hang for ever."""

    def __init__(self, body: bytes) -> None:
        self._body = io.BytesIO(body)
        self._left = len(body)

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        assert 0 <= size <= self._left, "it would wait for what never comes"
        self._left -= size
        return self._body.read(size)


@pytest.mark.parametrize("most", [1, 5, 10, 11, 100])
def test_of_wsgi_the_body_is_read_to_its_length_and_no_further(most: int) -> None:
    body = b"one\ntwo\nth"
    environ: dict[str, Any] = {"CONTENT_LENGTH": "10", "wsgi.input": Socket(body)}
    assert EarlyInput(environ).read(ReadBody(most)) == EarlyBody(body[:most], most < 10)
    again = environ["wsgi.input"]
    assert [again.readline(), again.read(1), *again] == [b"one\n", b"t", b"wo\n", b"th"]
    assert again.read() == b""


@pytest.mark.parametrize("most", [1, 5, 10, 11, 100])
def test_of_wsgi_a_body_of_unknown_length_is_read_to_its_end(most: int) -> None:
    body = b"one\ntwo\nth"
    environ: dict[str, Any] = {"wsgi.input_terminated": True, "wsgi.input": io.BytesIO(body)}
    early = EarlyInput(environ)
    assert early.read(ReadBody(1)).body == b"o"
    assert early.read(ReadBody(most)) == EarlyBody(body[:most], most < 10)
    assert environ["wsgi.input"].read() == body


def test_of_wsgi_without_a_length_there_is_no_body() -> None:
    environ: dict[str, Any] = {"wsgi.input": Socket(b"")}
    assert EarlyInput(environ).read(ReadBody(10)) == EarlyBody(b"", False)
    assert environ["wsgi.input"].read() == b""


def test_of_wsgi_a_caller_that_goes_away_left_a_part() -> None:
    environ: dict[str, Any] = {"CONTENT_LENGTH": "10", "wsgi.input": io.BytesIO(b"abc")}
    assert EarlyInput(environ).read(ReadBody(20)) == EarlyBody(b"abc", True)
