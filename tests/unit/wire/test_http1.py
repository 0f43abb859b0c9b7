"""What the parser makes of bytes, however they are cut."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from meshlib.call.effects import Failure
from meshlib.wire.encode import Encoded
from meshlib.wire.http1 import MAX_HEAD_BYTES, Exchange, ResponseParser
from meshlib.wire.message import Request


def exchange_for(method: bytes = b"GET", **headers: bytes) -> Exchange:
    pairs = [(name.encode(), value) for name, value in headers.items()]
    return Exchange(Encoded(Request(method, b"/", pairs)), reused=False)


def parsed(data: bytes, cuts: AbstractSet[int] = frozenset(), method: bytes = b"GET", **headers: bytes) -> Exchange:
    parser = ResponseParser()
    exchange = exchange_for(method, **headers)
    parser.expect(exchange)
    edges = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    for start, end in pairwise(edges):
        parser.feed(data[start:end])
    return exchange


RESPONSES = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Name: value \r\n\r\nhello": b"hello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nT: 1\r\n\r\n": b"hello",
    b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello": b"hello",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n": b"",
}


@given(st.sampled_from(sorted(RESPONSES)), st.sets(st.integers(0, 200), max_size=30))
def test_where_the_bytes_are_cut_makes_no_difference(data: bytes, cuts: set[int]) -> None:
    whole, cut = parsed(data), parsed(data, cuts)
    assert whole.take() == cut.take() == RESPONSES[data]
    assert (cut.complete, cut.keep_alive, cut.failure) == (True, True, None)
    assert (cut.status, cut.reason, cut.headers) == (whole.status, whole.reason, whole.headers)


@given(st.sets(st.integers(0, 200), max_size=30))
def test_where_a_hand_over_is_cut_makes_no_difference(cuts: set[int]) -> None:
    data = b"HTTP/1.1 100 Wait\r\n\r\nHTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nHTTP/1.1 raw\r\n\r\n"
    exchange = parsed(data, cuts, upgrade=b"x")
    assert (exchange.status, exchange.switched, exchange.failure) == (101, True, None)
    assert exchange.take() == b"HTTP/1.1 raw\r\n\r\n"


@given(st.binary(min_size=1, max_size=300))
def test_rubbish_never_raises_and_never_passes_for_a_whole_response(data: bytes) -> None:
    exchange = parsed(data)
    assert not exchange.complete


@given(st.sampled_from(sorted(RESPONSES)), st.integers(0, 200), st.integers(0, 255))
def test_one_damaged_byte_never_raises(data: bytes, place: int, byte: int) -> None:
    place %= len(data)
    exchange = parsed(data[:place] + bytes([byte]) + data[place + 1 :])
    assert exchange.failure in {None, Failure.PROTOCOL}


def test_a_response_ended_early_is_never_complete() -> None:
    for data in RESPONSES:
        for end in range(1, len(data)):
            parser, exchange = ResponseParser(), exchange_for()
            parser.expect(exchange)
            parser.feed(data[:end])
            if not exchange.complete:
                parser.eof()
                assert exchange.failure is not None
                assert exchange.failure is (Failure.PROTOCOL if exchange.started else Failure.RESET)


def test_one_parser_reads_one_response_after_the_other() -> None:
    parser = ResponseParser()
    for method in (b"GET", b"HEAD", b"GET"):
        exchange = exchange_for(method)
        parser.expect(exchange)
        parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"ok" if method == b"GET" else b""))
        assert (exchange.complete, exchange.keep_alive) == (True, True)
        assert exchange.take() == (b"ok" if method == b"GET" else b"")


def test_a_head_response_without_a_length_keeps_the_connection_unless_it_says_close() -> None:
    assert parsed(b"HTTP/1.1 200 OK\r\n\r\n", method=b"HEAD").keep_alive
    assert not parsed(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", method=b"HEAD").keep_alive
    assert not parsed(b"HTTP/1.0 200 OK\r\n\r\n", method=b"HEAD").keep_alive


def test_a_second_response_in_the_same_bytes_costs_the_connection_only() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    exchange = parsed(one + one)
    assert (exchange.take(), exchange.complete, exchange.keep_alive, exchange.failure) == (b"ok", True, False, None)


def test_a_head_that_never_ends_is_given_up_at_the_limit() -> None:
    parser, exchange = ResponseParser(), exchange_for()
    parser.expect(exchange)
    parser.feed(b"HTTP/1.1 200 OK\r\nA: ")
    fed = 0
    while exchange.failure is None:
        parser.feed(b"x" * 1000)
        fed += 1000
        assert fed <= MAX_HEAD_BYTES + 1000
    assert exchange.failure is Failure.PROTOCOL


def test_the_first_reason_for_a_failure_stands() -> None:
    exchange = exchange_for()
    exchange.fail(Failure.TIMEOUT, "late")
    exchange.fail(Failure.RESET, "then closed")
    assert str(exchange.error("a:1")) == "a:1: late"
    assert exchange.error("a:1").failure is Failure.TIMEOUT


def test_bytes_are_taken_up_to_a_limit() -> None:
    exchange = exchange_for()
    exchange.chunks, exchange.size = [b"abc", b"def"], 6
    assert (exchange.take(4), exchange.size, exchange.take(), exchange.size) == (b"abcd", 2, b"ef", 0)
