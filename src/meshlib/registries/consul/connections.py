"""Connections to a Consul agent: TCP or a Unix socket, in the clear or by TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl

import httpx

from meshlib.registries.consul.address import ConsulSettings

__all__ = ["connections"]

_KEEPALIVE = (("TCP_KEEPIDLE", 4), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
"""A network that was cut without a word is noticed after 10 s, and not at the end of a blocking query."""


def connections(settings: ConsulSettings) -> httpx.AsyncBaseTransport:
    """What requests are sent by. It belongs to the event loop it is first used on.

    Raises:
        OSError: a file for TLS can't be read, or used (`ssl.SSLError` is one).
        ValueError: likewise.
    """
    # Each blocking query has a connection of its own, so their number is no limit's business.
    transport = httpx.AsyncHTTPTransport(
        verify=_tls(settings) if settings.base.startswith("https:") else False,
        trust_env=False,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60.0),
        uds=settings.socket or None,
        socket_options=None if settings.socket else _socket_options(),
    )
    return _Named(transport, settings.server_name) if settings.server_name else transport


class _Named(httpx.AsyncBaseTransport):
    """Asks the TLS server by another name than that of its URL, and has its certificate checked for that."""

    def __init__(self, inner: httpx.AsyncBaseTransport, name: str) -> None:
        self._inner = inner
        self._name = name

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "sni_hostname": self._name}
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _tls(settings: ConsulSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_file or None, capath=settings.ca_path or None)
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file or None)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _socket_options() -> list[tuple[int, int, int]]:
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    for name, seconds in _KEEPALIVE:
        with contextlib.suppress(AttributeError):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), seconds))
    return options
