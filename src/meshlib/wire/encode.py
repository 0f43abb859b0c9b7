"""HTTP/1.1 requests without I/O: what is to be written, or why it can't be."""

from __future__ import annotations

import re

from meshlib.wire.message import InvalidRequest, Request

__all__ = ["BodyEncoder", "Encoded"]

_MAX_KNOWN_TOKENS = 1024
_TELLING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"upgrade"))

_is_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_is_target = re.compile(rb"[^\x00-\x20\x7f]+").fullmatch
_known_tokens: dict[bytes, bytes] = {}


def _token(name: bytes) -> bytes:
    """`name` in lower case, once it is known to be a token."""
    lower = _known_tokens.get(name)
    if lower is None:
        if not _is_token(name):
            raise InvalidRequest(
                f"{name!r} is no method or header name: letters, digits and !#$%&'*+-.^_`|~ are allowed"
            )
        lower = bytes(name).lower()
        if len(_known_tokens) < _MAX_KNOWN_TOKENS:
            _known_tokens[bytes(name)] = lower
    return lower


class BodyEncoder:
    """Frames the pieces of a request body as its head announced them.

    Args:
        length: bytes the head announced, None for chunked.
    """

    __slots__ = ("_left",)

    def __init__(self, length: int | None) -> None:
        self._left = length

    def encode(self, piece: bytes | memoryview) -> bytes | memoryview:
        """`piece` as it goes over the wire. Raises InvalidRequest if it exceeds the announced length."""
        if self._left is None:
            return b"".join((b"%x\r\n" % len(piece), piece, b"\r\n")) if piece else b""
        self._left -= len(piece)
        if self._left < 0:
            raise InvalidRequest(f"the request body is longer than its Content-Length, by {-self._left} bytes or more")
        return piece

    def end(self) -> bytes:
        """What ends the body. Raises InvalidRequest if it fell short of the announced length."""
        if self._left is None:
            return b"0\r\n\r\n"
        if self._left:
            raise InvalidRequest(f"the request body is shorter than its Content-Length, by {self._left} bytes")
        return b""


class Encoded:
    """A request ready to be written.

    Args:
        request: the request.

    Attributes:
        request: the request.
        head: its head, ending with the empty line.
        length: its Content-Length; None when its body goes in chunks.
        close: it says `Connection: close`.
        upgrade: a positive answer hands the connection over: it has an `Upgrade` header, or is a CONNECT.

    Raises:
        InvalidRequest: a name, value or target that would break out of its line, or a framing that contradicts itself.
    """

    __slots__ = ("close", "head", "length", "request", "upgrade")

    def __init__(self, request: Request) -> None:
        self.request = request
        _token(request.method)
        if not _is_target(request.target):
            raise InvalidRequest(f"the request target {request.target!r} has a blank or a control character")
        lines = [b"%b %b HTTP/1.1" % (request.method, request.target)]
        telling: dict[bytes, bytes] = {}
        for name, value in request.headers:
            lower = _token(name)
            if lower in _TELLING:
                # Repeated ones are one list: a list of lengths or of codings is refused below.
                telling[lower] = telling[lower] + b", " + value if lower in telling else value
            lines.append(b"%b: %b" % (name, value))
        self.close = b"close" in telling.get(b"connection", b"").lower()
        self.upgrade = request.method == b"CONNECT" or b"upgrade" in telling
        self.length = _framing(request, telling.get(b"content-length"), telling.get(b"transfer-encoding"), lines)
        lines.append(b"\r\n")
        self.head = head = b"\r\n".join(lines)
        # The lines were joined by as many CRLF as there should be: one more CR or LF stands inside a value.
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
            raise InvalidRequest(_unsafe_header(request))

    def encoder(self) -> BodyEncoder:
        """A fresh encoder for the body."""
        return BodyEncoder(self.length)

    def buffered(self, limit: int) -> bytes | None:
        """Head and body in one piece, if the body is buffered and has no more than `limit` bytes."""
        body = self.request.body
        if not body:
            if body is None or isinstance(body, bytes):
                return self.head if self.length == 0 else self.head + self.encoder().end()
            return None
        if not isinstance(body, bytes) or len(body) > limit:
            return None
        encoder = self.encoder()
        return b"".join((self.head, encoder.encode(body), encoder.end()))


def _framing(request: Request, length: bytes | None, coding: bytes | None, lines: list[bytes]) -> int | None:
    if coding is not None:
        if length is not None or coding.strip().lower() != b"chunked":
            raise InvalidRequest(f"Transfer-Encoding {coding!r}: only `chunked` without Content-Length can be sent")
        return None
    body = request.body
    if length is not None:
        if not (length.isdigit() and len(length) < 20):
            raise InvalidRequest(f"Content-Length {length!r} is no number of bytes")
        announced = int(length)
        if (body is None or isinstance(body, bytes)) and announced != len(body or b""):
            raise InvalidRequest(f"Content-Length says {announced}, but the body has {len(body or b'')} bytes")
        return announced
    if body is None:
        return 0
    if isinstance(body, bytes):
        lines.append(b"Content-Length: %d" % len(body))
        return len(body)
    lines.append(b"Transfer-Encoding: chunked")
    return None


def _unsafe_header(request: Request) -> str:
    for name, value in request.headers:
        if re.search(rb"[\r\n\0]", value):
            return f"the value of header {name.decode()} has a CR, LF or NUL in it"
    return "the request head has a CR, LF or NUL in it"
