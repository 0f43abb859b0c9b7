"""The TLS context for `https://` hosts; building one costs tens of milliseconds, so one is shared."""

from __future__ import annotations

import ssl
import threading
from types import ModuleType
from typing import Any

from meshlib.wire.forking import renew_in_children

__all__ = ["Tls"]


class Tls:
    """The context of one transport, built when the first `https://` URL comes.

    Args:
        client: httpx or httpx2.
        verify: as for the client: a context, or whether to verify.
        http2: whether HTTP/2 is offered.
        trust_env: whether SSL_CERT_FILE and SSL_CERT_DIR count.
    """

    __slots__ = ("__weakref__", "_client", "_context", "_http2", "_lock", "_trust_env", "_verify")

    def __init__(self, client: ModuleType, verify: Any, *, http2: bool, trust_env: bool) -> None:
        self._client = client
        self._verify = verify
        self._http2 = http2
        self._trust_env = trust_env
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        renew_in_children(self)

    def after_fork(self) -> None:
        """See `Forkable`. The context itself may be shared."""
        self._lock = threading.Lock()

    @property
    def built(self) -> bool:
        """Whether `context` answers at once."""
        return self._context is not None

    def context(self) -> ssl.SSLContext:
        """The context; blocks for tens of milliseconds the first time, unless one was given."""
        with self._lock:
            if self._context is None:
                made: ssl.SSLContext = self._client.create_ssl_context(verify=self._verify, trust_env=self._trust_env)
                made.set_alpn_protocols(["http/1.1", "h2"] if self._http2 else ["http/1.1"])
                self._context = made
            return self._context
