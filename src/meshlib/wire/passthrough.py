"""Hosts outside the mesh: the client library's own transport, as if meshlib weren't there."""

from __future__ import annotations

import inspect
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

from meshlib.wire.forking import renew_in_children, set_aside

if TYPE_CHECKING:
    from meshlib.wire.transport import Options

__all__ = ["AsyncPassthrough", "Passthrough"]


class _Transports:
    """One transport for each proxy (and for none), made when it is first needed."""

    def __init__(self, make: Any, options: Options) -> None:
        self._make = make
        self._options = options
        self._extra = dict(options.extra)
        try:  # what is misspelt is an error now, not at a call
            inspect.signature(make).bind_partial(**self._extra)
        except TypeError as error:
            raise TypeError(f"{make.__name__} {error}") from None
        self._fixed = self._extra.pop("proxy", None)
        self._made: dict[Any, Any] = {}
        self._lock = threading.Lock()
        renew_in_children(self)

    def after_fork(self) -> None:
        """See `Forkable`."""
        set_aside(self._made)
        self._made = {}
        self._lock = threading.Lock()

    def get(self, request: Any) -> Any:
        proxy = self._fixed or (self._proxy(request.url) if self._options.trust_env else None)
        with self._lock:
            found = self._made.get(proxy)
            if found is None:
                options = self._options
                found = self._made[proxy] = self._make(
                    proxy=proxy,
                    verify=options.verify,
                    http2=options.http2,
                    trust_env=options.trust_env,
                    **self._extra,
                )
            return found

    @staticmethod
    def _proxy(url: Any) -> str | None:
        """The proxy that HTTP_PROXY and its kin name for a URL; a client with a transport of its own ignores them."""
        proxies = getproxies()
        proxy = proxies.get(url.scheme) or proxies.get("all")
        if not proxy or proxy_bypass(url.host):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def take_all(self) -> list[Any]:
        with self._lock:
            made, self._made = list(self._made.values()), {}
        return made


class Passthrough:
    """For sync transports."""

    def __init__(self, client: ModuleType, options: Options) -> None:
        self._transports = _Transports(client.HTTPTransport, options)

    def send(self, request: Any) -> Any:
        """Send a request as the client library would."""
        return self._transports.get(request).handle_request(request)

    def close(self) -> None:
        """Close every transport."""
        for transport in self._transports.take_all():
            transport.close()


class AsyncPassthrough:
    """For async transports."""

    def __init__(self, client: ModuleType, options: Options) -> None:
        self._transports = _Transports(client.AsyncHTTPTransport, options)

    async def send(self, request: Any) -> Any:
        """Send a request as the client library would."""
        return await self._transports.get(request).handle_async_request(request)

    async def aclose(self) -> None:
        """Close every transport."""
        for transport in self._transports.take_all():
            await transport.aclose()
