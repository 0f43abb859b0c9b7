"""Network backends for httpcore that dial the endpoint, whatever host the URL names."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import httpcore

__all__ = ["AsyncDialler", "Bound", "Dialler"]


class AsyncDialler(httpcore.AsyncNetworkBackend):
    """Dials `host` and `port` on asyncio or trio."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return await self._backend.connect_tcp(self._host, self._port, timeout, local_address, socket_options)


class Bound(threading.local):
    """The instant that bounds the reads of this thread: httpcore itself bounds only each single read."""

    instant: float | None = None

    @contextmanager
    def until(self, instant: float | None) -> Generator[None, None, None]:
        self.instant = instant
        try:
            yield
        finally:
            self.instant = None

    def clip(self, timeout: float | None) -> float | None:
        if self.instant is None:
            return timeout
        left = self.instant - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for the response ran out")
        return left if timeout is None else min(left, timeout)


class Dialler(httpcore.NetworkBackend):
    """Dials `host` and `port`; what is read from the connection is bounded by `bound`."""

    def __init__(self, host: str, port: int, bound: Bound) -> None:
        self._host = host
        self._port = port
        self._bound = bound
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            stream = self._backend.connect_tcp(self._host, self._port, timeout, local_address, socket_options)
        except UnicodeError as exc:  # an empty label, or one too long
            raise httpcore.ConnectError(f"{self._host!r} is no host name: {exc}") from exc
        return BoundStream(stream, self._bound)


class BoundStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, bound: Bound) -> None:
        self._stream = stream
        self._bound = bound

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._bound.clip(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._bound.clip(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return BoundStream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._bound)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
