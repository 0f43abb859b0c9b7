"""Certificates of a test's own, and a server of HTTP/2."""

from __future__ import annotations

import ssl
from typing import Any

import h2.config
import h2.connection
import h2.events
import trustme

from tests.wire.server import Peer

__all__ = ["HTTP2", "client_context", "server_context"]

AUTHORITY = trustme.CA()


def client_context() -> ssl.SSLContext:
    """Trusts the certificates of these tests, and no others."""
    return ssl.create_default_context(cadata=AUTHORITY.cert_pem.bytes().decode())


def server_context(host: str, *protocols: str) -> ssl.SSLContext:
    """For a server with a certificate for `host`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(host).configure_cert(context)
    context.set_alpn_protocols(list(protocols) or ["http/1.1"])
    return context


class HTTP2:
    """Answers every request with `body`, and what it was sent with the same.

    Attributes:
        requests: their pseudo-headers and headers.
        bodies: what came with them, in the order of their ends.
        connections: how many were opened.
    """

    def __init__(self, context: ssl.SSLContext, body: bytes) -> None:
        self._context = context
        self._body = body
        self.requests: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.connections = 0

    def __call__(self, peer: Peer) -> None:
        """Serve a connection."""
        peer.sock = self._context.wrap_socket(peer.sock, server_side=True)
        self.connections += 1
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        peer.send(connection.data_to_send())
        parts: dict[int, list[bytes]] = {}
        while data := peer.sock.recv(65536):
            for event in connection.receive_data(data):
                self._handle(connection, event, parts)
            peer.send(connection.data_to_send())

    def _handle(self, connection: Any, event: h2.events.Event, parts: dict[int, list[bytes]]) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.requests.append(dict(event.headers))  # type: ignore[arg-type]  # text, as configured
            parts[event.stream_id] = []
        elif isinstance(event, h2.events.DataReceived):
            parts[event.stream_id].append(event.data)
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.bodies.append(b"".join(parts.pop(event.stream_id)))
            connection.send_headers(event.stream_id, [(":status", "200"), ("content-length", str(len(self._body)))])
            connection.send_data(event.stream_id, self._body, end_stream=True)
