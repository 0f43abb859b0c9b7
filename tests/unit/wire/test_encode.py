"""How a request is written, and which are refused before a byte is sent."""

from __future__ import annotations

import pytest

from meshlib.wire.encode import Encoded
from meshlib.wire.message import Headers, InvalidRequest, Request, RequestBody

HOST = (b"Host", b"reviews")


def encoded(method: bytes = b"GET", target: bytes = b"/", headers: Headers = (), body: RequestBody = None) -> Encoded:
    return Encoded(Request(method, target, [HOST, *headers], body))


def test_a_request_without_body_is_its_head_alone() -> None:
    assert encoded(target=b"/a?b").buffered(0) == b"GET /a?b HTTP/1.1\r\nHost: reviews\r\n\r\n"


def test_a_small_body_goes_with_its_head() -> None:
    data = encoded(b"PUT", body=b"abc", headers=[(b"content-length", b"3")]).buffered(10)
    assert data == b"PUT / HTTP/1.1\r\nHost: reviews\r\ncontent-length: 3\r\n\r\nabc"


def test_a_body_over_the_limit_goes_by_itself() -> None:
    assert encoded(b"PUT", body=b"abc").buffered(2) is None


def test_framing_is_added_only_where_it_is_missing() -> None:
    assert b"\r\nContent-Length: 3\r\n" in encoded(b"PUT", body=b"abc").head
    assert b"\r\nContent-Length: 0\r\n" in encoded(b"PUT", body=b"").head
    assert b"\r\nTransfer-Encoding: chunked\r\n" in encoded(b"PUT", body=iter([b"abc"])).head
    assert encoded(b"PUT", body=iter([b"abc"]), headers=[(b"Content-Length", b"3")]).head.count(b": ") == 2


def test_a_chunked_body_is_framed_piece_by_piece() -> None:
    encoder = encoded(b"PUT", body=iter([])).encoder()
    assert encoder.encode(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert encoder.encode(b"") == b""
    assert encoder.end() == b"0\r\n\r\n"


def test_a_buffered_body_announced_as_chunked_is_one_chunk() -> None:
    chunked = [(b"Transfer-Encoding", b"chunked")]
    data = encoded(b"PUT", body=b"abc", headers=chunked).buffered(10)
    assert data is not None
    assert data.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert encoded(b"PUT", headers=chunked).buffered(10) == encoded(b"PUT", headers=chunked).head + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"A", b"b\r\nEvil: 1")],
        [(b"A", b"b\nEvil: 1")],
        [(b"A", b"b\rEvil")],
        [(b"A", b"b\0")],
        [(b"A\r\nEvil", b"1")],
        [(b"A b", b"1")],
        [(b"A:", b"1")],
        [(b"", b"1")],
        [("Ä".encode(), b"1")],
        [(b"Content-Length", b"0"), (b"Content-Length", b"0")],
        [(b"Content-Length", b"+1")],
        [(b"Content-Length", b"5")],
        [(b"Content-Length", b"9" * 30)],
        [(b"Transfer-Encoding", b"gzip")],
        [(b"Transfer-Encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
        [(b"Content-Length", b"0"), (b"Transfer-Encoding", b"chunked")],
    ],
)
def test_headers_that_would_break_out_or_contradict_are_refused(headers: Headers) -> None:
    with pytest.raises(InvalidRequest):
        encoded(headers=headers)


@pytest.mark.parametrize("target", [b"", b"/a b", b"/a\r\nEvil: 1", b"/\0", b"/\t", b"/\x7f"])
def test_a_target_that_would_break_out_of_its_line_is_refused(target: bytes) -> None:
    with pytest.raises(InvalidRequest, match="target"):
        encoded(target=target)


@pytest.mark.parametrize("method", [b"", b"GET ", b"G\r\nT", b"G:T"])
def test_a_method_that_is_no_token_is_refused(method: bytes) -> None:
    with pytest.raises(InvalidRequest):
        encoded(method=method)


def test_the_message_names_the_header_that_was_refused() -> None:
    with pytest.raises(InvalidRequest, match="X-Trace"):
        encoded(headers=[(b"X-Trace", b"a\nb")])


def test_an_obs_text_value_passes() -> None:
    assert b"A: \xe4\r\n" in encoded(headers=[(b"A", b"\xe4")]).head


def test_close_and_upgrade_are_noticed() -> None:
    assert encoded(headers=[(b"Connection", b"Keep-Alive, Close")]).close
    assert not encoded(headers=[(b"Connection", b"keep-alive")]).close
    assert encoded(headers=[(b"Upgrade", b"websocket")]).upgrade
    assert encoded(b"CONNECT", b"reviews:80").upgrade
    assert not encoded().upgrade
