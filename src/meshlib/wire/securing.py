"""TLS over a connection that was opened, as the plan asks for: what the kinds of connections share."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Generator
from typing import NoReturn

from meshlib.call.effects import Failure
from meshlib.identity.secured import Link, Secured
from meshlib.identity.verifying import OutgoingSocket, explain
from meshlib.wire.message import WireError
from meshlib.wire.sockets import READABLE, WRITABLE

__all__ = ["HANDSHAKE_ERRORS", "begin", "handshake", "refused"]

HANDSHAKE_ERRORS = (ssl.SSLError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
"""What a handshake may raise, and the opening of a connection doesn't."""


def begin(current: Callable[[], Secured], peer: str) -> Link:
    """How a new connection is to be secured.

    Args:
        current: tells what is in force for the peer.
        peer: `host:port`, for messages.

    Raises:
        WireError: TLS; it can't be, and nothing must be sent in the clear.
    """
    link = Link(current, time.monotonic())
    if link.secured.context is None:
        raise WireError(Failure.TLS, f"{peer}: {link.secured.problem}")
    return link


def refused(error: Exception, peer: str) -> NoReturn:
    """Raise WireError for a handshake that failed; nothing was sent."""
    raise WireError(Failure.TLS, f"{peer}: {explain(error)}") from error


def handshake(
    sock: socket.socket, link: Link, peer: str, deadline: float | None
) -> Generator[tuple[socket.socket, int, float | None], int, OutgoingSocket]:
    """Do the handshake on a connected, non-blocking socket, which is closed if that fails.

    Raises:
        WireError: TLS, or CONNECT_TIMEOUT if the deadline passes.
    """
    context, name = link.secured.context, link.secured.server_hostname
    assert context is not None
    held: socket.socket = sock
    try:
        # An end without a farewell is an error: whoever sits between may cut a body short.
        secure = context.wrap_socket(
            sock, do_handshake_on_connect=False, suppress_ragged_eofs=False, server_hostname=name or None
        )
        held = secure
        assert isinstance(secure, OutgoingSocket)
        while True:
            try:
                secure.do_handshake()
                return secure
            except ssl.SSLWantReadError:
                events = READABLE
            except ssl.SSLWantWriteError:
                events = WRITABLE
            if not (yield secure, events, deadline):
                raise WireError(Failure.CONNECT_TIMEOUT, f"{peer}: no TLS handshake within the time for it")
    except (OSError, ValueError) as error:
        held.close()
        refused(error, peer)
    except BaseException:
        held.close()
        raise
