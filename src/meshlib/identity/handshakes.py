"""Connections as they come in: plain or TLS by the first byte, the caller's identity checked within the handshake.

A server knows one kind of TLS connection, the one its `SSLContext` makes. What `ServerContext` makes are these: an
`IncomingLink` for servers on an event loop, which feed TLS by hand, and an `IncomingSocket` for those on blocking
sockets.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from meshlib.identity.spiffe import SpiffeId

if TYPE_CHECKING:
    from meshlib.identity.incoming import Serving

__all__ = ["HANDSHAKEN", "HANDSHAKE_WAIT", "IncomingLink", "IncomingPlain", "IncomingSocket", "Refused", "first_byte"]

HANDSHAKE_WAIT = 5.0
"""Seconds a blocking server waits for the first byte, and again for the handshake: as long as gunicorn's threads wait
for a request. Servers on an event loop have a timeout of their own."""

TLS_HANDSHAKE = 0x16
"""The first byte of every TLS connection (RFC 8446, 5.1), and of no request."""


class Refused(ssl.SSLError):
    """A connection that isn't let in. The reason has been logged."""

    def __init__(self, reason: str) -> None:
        # The code says "closed": servers take it without answering, which a refused peer has no claim to.
        super().__init__(ssl.SSL_ERROR_EOF, reason)


class IncomingLink:
    """What a server on an event loop takes for an `ssl.SSLObject`.

    Args:
        serving: gives what is in force, at each step anew.
        incoming: the bytes that came.
        outgoing: the bytes to be sent.

    Attributes:
        peer: the caller's verified identity; None: it showed none, or the connection is plain.
        secure: whether it is TLS.
    """

    server_side = True

    def __init__(self, serving: Callable[[], Serving], incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self.peer: SpiffeId | None = None
        self.secure = False
        self._serving = serving
        self._incoming = incoming
        self._outgoing = outgoing
        self._began: Serving | None = None
        self._link: ssl.SSLObject | _Plain | None = None

    def do_handshake(self) -> None:
        """See `ssl.SSLObject`."""
        serving = self._serving()
        link = self._link
        if link is None:
            link = self._open(serving)
        if isinstance(link, ssl.SSLObject):
            assert self._began is not None
            self.peer = serving.shake(link, link.do_handshake, self._began, None)
        HANDSHAKEN.set(self)

    def _open(self, serving: Serving) -> ssl.SSLObject | _Plain:
        """Look at the first byte, and put it back."""
        came = self._incoming.read()
        if not came:
            if self._incoming.eof:
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection ended before its first byte")
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "nothing came yet")
        self._incoming.write(came)
        if came[0] == TLS_HANDSHAKE:
            self.secure = True
            self._began = serving
            serving.take_tls(None)
            self._link = serving.wrap_bio(self._incoming, self._outgoing, server_side=True)
        else:
            serving.take_plain(None)
            self._link = _Plain(self._incoming, self._outgoing)
        return self._link

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - the name in `ssl`
        """See `ssl.SSLObject`."""
        return self._opened.read(len, buffer)

    def write(self, data: Any) -> int:
        """See `ssl.SSLObject`."""
        return self._opened.write(data)

    def pending(self) -> int:
        """See `ssl.SSLObject`."""
        return self._opened.pending()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """See `ssl.SSLObject`; None for a plain connection."""
        return self._opened.getpeercert(binary_form)

    @property
    def _opened(self) -> ssl.SSLObject | _Plain:
        if self._link is None:
            raise ValueError("the handshake has not been done")
        return self._link

    def __getattr__(self, name: str) -> Any:
        # What is asked once a connection, if at all.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._opened, name)


class _Plain:
    """A connection without TLS, in the words of `ssl.SSLObject`."""

    __slots__ = ("_incoming", "_outgoing")

    context = session = server_hostname = None
    session_reused = False

    def __init__(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    def read(self, wanted: int = 1024, buffer: Any = None) -> Any:
        came = self._incoming.read(wanted)
        if not came and not self._incoming.eof:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "nothing came yet")
        if buffer is None:
            return came
        buffer[: len(came)] = came
        return len(came)

    def write(self, data: Any) -> int:
        return self._outgoing.write(data)

    def pending(self) -> int:
        return 0  # what hasn't been read is in the BIO, where servers look as well

    def unwrap(self) -> None:
        """There is no end to announce."""

    def nothing(self, *_: object) -> None:
        """There is no certificate, no cipher, no protocol."""

    getpeercert = selected_alpn_protocol = cipher = shared_ciphers = compression = version = nothing
    get_channel_binding = nothing


HANDSHAKEN: ContextVar[IncomingLink | None] = ContextVar("meshlib_handshaken", default=None)
"""The connection whose handshake was done in this context. A server that gives its application no way to the connection
starts the task that serves it here, or in a copy."""


class IncomingSocket(ssl.SSLSocket):
    """A blocking TLS connection. Its handshake is done before anything is read or written.

    Attributes:
        peer: the caller's verified identity; None: it showed none.
    """

    peer: SpiffeId | None = None
    secure = True
    serving: Callable[[], Serving] | None = None
    began: Serving | None = None
    port: int | None = None
    _checked = False

    def admit(self, serving: Callable[[], Serving], began: Serving, port: int | None) -> None:
        """Do the handshake, within `HANDSHAKE_WAIT`.

        Args:
            serving: gives what is in force, at each step anew.
            began: what was in force when the connection was wrapped.
            port: it came to.
        """
        self.serving = serving
        self.began = began
        self.port = port
        timeout = self.gettimeout()
        if timeout == 0.0:
            return  # a server on an event loop: it does the handshake as it can
        self.settimeout(0.0)
        until = time.monotonic() + HANDSHAKE_WAIT
        while True:
            try:
                self.do_handshake()
                break
            except ssl.SSLWantReadError:
                _wait(self, select.POLLIN, until)
            except ssl.SSLWantWriteError:
                _wait(self, select.POLLOUT, until)
        self.settimeout(timeout)

    def do_handshake(self, block: bool = False) -> None:
        """See `ssl.SSLSocket`."""
        if self._checked:
            return
        assert self.serving is not None
        assert self.began is not None
        self.peer = self.serving().shake(self, super().do_handshake, self.began, self.port)
        self._checked = True

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - the name in `ssl`
        """See `ssl.SSLSocket`. OpenSSL would do a handshake here, without our check."""
        if not self._checked:
            self.do_handshake()
        return super().read(len, buffer)

    def write(self, data: Any) -> int:
        """See `ssl.SSLSocket`."""
        if not self._checked:
            self.do_handshake()
        return super().write(data)

    def send(self, data: Any, flags: int = 0) -> int:
        """See `ssl.SSLSocket`."""
        if not self._checked:
            self.do_handshake()
        return super().send(data, flags)


class IncomingPlain(socket.socket):
    """A blocking connection without TLS, for a server that goes on to treat it as an `ssl.SSLSocket`."""

    def do_handshake(self, block: bool = False) -> None:
        """There is none to do."""

    def unwrap(self) -> socket.socket:
        """See `ssl.SSLSocket`."""
        return self

    def getpeercert(self, binary_form: bool = False) -> None:
        """There is none."""

    def selected_alpn_protocol(self) -> None:
        """There is none."""

    @classmethod
    def of(cls, sock: socket.socket) -> IncomingPlain:
        """The same connection; `sock` is let go of, as `ssl` does it."""
        timeout = sock.gettimeout()
        made = cls(sock.family, sock.type, sock.proto, fileno=sock.detach())
        made.settimeout(timeout)
        return made


def first_byte(sock: socket.socket) -> int:
    """The first byte that comes on a connection; it stays there to be read.

    Args:
        sock: with a timeout, or blocking.

    Raises:
        Refused: none came within `HANDSHAKE_WAIT`.
        ssl.SSLEOFError: the connection ended without one.
    """
    timeout = sock.gettimeout()
    sock.settimeout(HANDSHAKE_WAIT)
    try:
        came = sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        raise Refused(f"not a byte came within {HANDSHAKE_WAIT:g} s") from None
    finally:
        with contextlib.suppress(OSError):
            sock.settimeout(timeout)
    if not came:
        raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection ended before its first byte")
    return came[0]


def _wait(sock: socket.socket, events: int, until: float) -> None:
    left = until - time.monotonic()
    poll = select.poll()
    poll.register(sock, events)
    if left <= 0 or not poll.poll(left * 1000):
        raise Refused(f"the handshake wasn't done within {HANDSHAKE_WAIT:g} s")
