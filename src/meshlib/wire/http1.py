"""HTTP/1.1 responses without I/O: bytes in, heads and bodies out. Strict, for what the wire says is not trusted.

llhttp (through httptools) refuses by itself: obs-fold, bare LF or CR, Content-Length beside Transfer-Encoding, repeated
or malformed Content-Length, malformed or overflowing chunk sizes, malformed names and values. What it lets pass or
can't know (the request's method, transfer codings other than chunked, other protocols, sizes, counts) is refused here.
"""

from __future__ import annotations

from asyncio import Future
from typing import NoReturn

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from meshlib.call.effects import Failure
from meshlib.wire.encode import Encoded
from meshlib.wire.message import WireError

__all__ = ["MAX_HEADERS", "MAX_HEAD_BYTES", "MAX_INTERIM", "Exchange", "ResponseParser"]

MAX_HEAD_BYTES = 65_536
"""Bytes of one response head, and of the trailers: the limit of nginx's and Go's defaults lies in the same range."""
MAX_HEADERS = 200
"""Header lines of one response, trailers counted apart."""
MAX_INTERIM = 10
"""Interim (1xx) responses before the final one."""

_VERSIONS = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}


class Exchange:
    """One request and its response, as far as they have got.

    Attributes:
        sent: some byte of the request was handed to a socket.
        received: some byte of the response came.
        reused: the connection had carried a request before.
        secured: the connection is TLS of the mesh's own.
        started: the response head is here: `status`, `reason`, `version`, `headers`.
        complete: the response has ended.
        keep_alive: both sides are willing to go on, once the response is complete.
        switched: the connection belongs to another protocol now, and `chunks` are its bytes.
        chunks: what came of the body and nobody took yet; `size` is their sum in bytes.
        failure: what broke the exchange, None while it is sound; `cause` is the exception that says more.
        waiters: of asyncio tasks that wait for any of this to change.
    """

    __slots__ = (
        "cause", "chunks", "complete", "failure", "headers", "keep_alive", "method", "problem", "reason", "received",
        "reused", "secured", "sent", "size", "started", "status", "switched", "upgrade", "version", "waiters",
    )  # fmt: skip

    def __init__(self, encoded: Encoded, *, reused: bool, secured: bool = False) -> None:
        self.method = encoded.request.method
        self.upgrade = encoded.upgrade
        self.keep_alive = not encoded.close
        self.reused = reused
        self.secured = secured
        self.sent = self.received = self.started = self.complete = self.switched = False
        self.status = 0
        self.reason = b""
        self.version = b"HTTP/1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: list[bytes] = []
        self.size = 0
        self.failure: Failure | None = None
        self.problem = ""
        self.cause: BaseException | None = None
        self.waiters: list[Future[None]] = []

    @property
    def settled(self) -> bool:
        """Whether there is no point in sending more of the request: it is answered, or broken."""
        return self.started or self.failure is not None

    def take(self, limit: int | None = None) -> bytes:
        """What came of the body since the last time, up to `limit` bytes."""
        chunks = self.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.size = 0
        if limit is not None and len(data) > limit:
            chunks.append(data[limit:])
            self.size = len(data) - limit
            data = data[:limit]
        return data

    def fail(self, failure: Failure, problem: str, cause: BaseException | None = None) -> None:
        """The exchange is broken; the first reason stands."""
        if self.failure is None and not self.complete:
            self.failure = failure
            self.problem = problem
            self.cause = cause

    def error(self, peer: str) -> WireError:
        """The failure as an exception, with its cause."""
        failure, problem = self.failure or Failure.RESET, self.problem
        if self.secured and failure is Failure.RESET and not (self.received or self.reused):
            # In TLS 1.3 a server looks at our certificate when we have done our part of the handshake.
            problem += "; nothing came since the TLS handshake: if it refused our certificate, its log says why"
        error = WireError(
            failure,
            f"{peer}: {problem}",
            sent=self.sent,
            received=self.received,
            reused=self.reused,
        )
        error.__cause__ = self.cause
        return error


class ResponseParser:
    """Reads the responses of one connection, one after the other, into `Exchange`s."""

    __slots__ = (
        "_exchange", "_fed", "_interim", "_llhttp", "_pending", "_problem", "_size", "_spent", "_trailers",
        "_until_close",
    )  # fmt: skip

    def __init__(self) -> None:
        self._llhttp = HttpResponseParser(self)
        self._spent = False

    def expect(self, exchange: Exchange) -> None:
        """The next bytes are the response of `exchange`."""
        self._exchange = exchange
        self._problem = ""
        self._fed = self._interim = self._size = self._trailers = 0
        self._until_close = True
        self._pending = b""
        if self._spent:
            self._spent = False
            self._llhttp = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take in what came. Whether it is too much, or no HTTP, stands in the exchange afterwards."""
        exchange = self._exchange
        if exchange.switched:
            self._keep(data)
        elif exchange.complete:
            exchange.keep_alive = False
        else:
            if not exchange.received:
                exchange.received = True
                if not b"HTTP/".startswith(data[:5]):
                    exchange.fail(Failure.PROTOCOL, f"the response begins with {data[:16]!r}, which is not HTTP/1")
                    return
            if exchange.upgrade and not exchange.started:
                self._feed_heads(data)
            else:
                self._parse(data)

    def eof(self) -> None:
        """The peer will send no more: the end of the response if it has no other, or else its failure."""
        exchange = self._exchange
        if exchange.switched or (exchange.started and self._until_close):
            exchange.complete = True
        elif exchange.started:
            exchange.fail(Failure.PROTOCOL, "the connection was closed in the middle of the response body")
        else:
            where = "in the middle of the response head" if exchange.received else "without a response"
            exchange.fail(Failure.RESET, f"the connection was closed {where}")

    def close(self) -> None:
        """Cut the cycle of references between this and llhttp's callbacks. Nothing can be fed any more."""
        del self._llhttp

    def _feed_heads(self, data: bytes) -> None:
        # What follows the head that hands the connection over must not be parsed: heads are fed one by one.
        data = self._pending + data
        while not self._exchange.started and (end := data.find(b"\r\n\r\n")) >= 0 and not self._exchange.failure:
            self._parse(data[: end + 4])
            data = data[end + 4 :]
        if not self._exchange.started:
            self._pending = data
            if len(data) > MAX_HEAD_BYTES:
                self._exchange.fail(Failure.PROTOCOL, f"the response head has more than {MAX_HEAD_BYTES} bytes")
        elif data and not self._exchange.failure:
            self.feed(data)

    def _parse(self, data: bytes) -> None:
        self._size += len(data)
        self._fed += len(data)
        try:
            self._llhttp.feed_data(data)
        except HttpParserUpgrade:
            pass
        except HttpParserError as exc:
            exchange = self._exchange
            if exchange.complete:
                exchange.keep_alive = False
            else:
                exchange.fail(Failure.PROTOCOL, self._problem or f"the response is malformed: {exc}", exc)
        else:
            # Callbacks set the count back; a head, a trailer or a chunk extension without an end does not.
            if self._size > MAX_HEAD_BYTES and not self._exchange.complete:
                self._exchange.fail(Failure.PROTOCOL, f"the response head has more than {MAX_HEAD_BYTES} bytes")

    def _refuse(self, problem: str) -> NoReturn:
        self._problem = problem
        raise ValueError(problem)

    def _keep(self, data: bytes) -> None:
        exchange = self._exchange
        exchange.chunks.append(data)
        exchange.size += len(data)

    def on_message_begin(self) -> None:
        if self._exchange.complete:
            self._refuse("data after the response")
        self._exchange.reason = b""
        self._exchange.headers.clear()

    def on_status(self, reason: bytes) -> None:
        self._exchange.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange = self._exchange
        if exchange.started:
            self._trailers += 1
            if self._trailers > MAX_HEADERS:
                self._refuse(f"the response has more than {MAX_HEADERS} trailers")
            return
        headers = exchange.headers
        size = len(name)
        if size == 14:
            if name.lower() == b"content-length":
                self._until_close = False
        elif size == 17 and name.lower() == b"transfer-encoding":
            if not self._until_close or value.strip().lower() != b"chunked":
                self._refuse(f"the response has Transfer-Encoding {value!r}: only `chunked`, once, is understood")
            self._until_close = False
        if len(headers) >= MAX_HEADERS:
            self._refuse(f"the response has more than {MAX_HEADERS} headers")
        headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        exchange = self._exchange
        llhttp = self._llhttp
        status = exchange.status = llhttp.get_status_code()
        version = _VERSIONS.get(llhttp.get_http_version())
        if version is None or status < 100:
            self._refuse(f"the response is HTTP/{llhttp.get_http_version()} {status}, not HTTP/1.1 or HTTP/1.0")
        else:
            exchange.version = version
        if self._fed > MAX_HEAD_BYTES and sum([len(n) + len(v) + 4 for n, v in exchange.headers]) > MAX_HEAD_BYTES:
            self._refuse(f"the response head has more than {MAX_HEAD_BYTES} bytes")
        self._size = 0
        if status < 200 and status != 101:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                self._refuse(f"more than {MAX_INTERIM} interim responses came before the final one")
            self._until_close = True
            return
        if status == 101 and not exchange.upgrade:
            self._refuse("the response is 101 Switching Protocols, which was not asked for")
        exchange.started = True
        if status == 101 or (exchange.method == b"CONNECT" and status < 300):
            exchange.switched = True
            exchange.keep_alive = False
        elif exchange.method == b"HEAD":
            exchange.keep_alive = exchange.keep_alive and _persists(exchange)
            exchange.complete = True
            # llhttp doesn't know that no body follows: the next response needs a fresh one.
            self._spent = True
        else:
            exchange.keep_alive = exchange.keep_alive and llhttp.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if self._exchange.complete:
            self._refuse("data after the response")
        if self._exchange.switched:
            return
        self._size = 0
        self._keep(data)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange.started and not exchange.switched:
            exchange.complete = True


def _persists(exchange: Exchange) -> bool:
    options = b",".join([value for name, value in exchange.headers if name.lower() == b"connection"]).lower()
    if b"close" in options:
        return False
    return exchange.version == b"HTTP/1.1" or b"keep-alive" in options
