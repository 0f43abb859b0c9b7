"""The mesh: the one object an application holds."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self, overload
from urllib.parse import urlsplit

from meshlib.agent.breakers import BreakerBridge
from meshlib.errors import SettingsError
from meshlib.identity.sources import check_url
from meshlib.policy.strategy import RetryStrategy
from meshlib.registries import open_registry
from meshlib.registries.base import Registry
from meshlib.running import Choices, Running
from meshlib.settings import parse_address, settings_from
from meshlib.status import Status, status_of

if TYPE_CHECKING:
    import httpx
    from pybreaker import CircuitBreakerListener
    from tenacity.stop import StopBaseT
    from tenacity.wait import WaitBaseT

    from meshlib.agent.breakers import StorageFactory
    from meshlib.explain import Explanation
    from meshlib.explain_inbound import InboundExplanation

__all__ = ["Mesh", "default_mesh"]

log = logging.getLogger("meshlib")

_PLAIN = (
    "this process has an identity, and its server speaks plain text: callers don't hear of the identity; have it serve "
    "with meshlib.server_ssl_context()"
)


class Mesh(Running):
    """A service mesh inside this process. Thread-safe; one serves any number of clients, loops and threads.

    Nothing happens until it is used: the first call (or `open`) starts the agent's thread and waits for the first
    configuration. Without `close` the process still ends cleanly.

    Args:
        registry: URL, or a registry object; MESHLIB_REGISTRY.
        service: this service's name; MESHLIB_SERVICE.
        namespace: MESHLIB_NAMESPACE.
        address: `host:port` others reach this service at; MESHLIB_ADDRESS.
        labels: MESHLIB_LABELS.
        locality: `region/zone/subzone`; MESHLIB_LOCALITY.
        outbound: `allow-any` or `registry-only`; MESHLIB_OUTBOUND.
        state_dir: MESHLIB_STATE_DIR.
        identity: where keys and certificates come from; MESHLIB_IDENTITY.
        trusted_hops: whose `x-forwarded-client-cert` counts; MESHLIB_TRUSTED_HOPS.
        limits: the Redis on which GLOBAL rate limits are counted; MESHLIB_LIMITS.
        strict: refuse documents with fields that are only approximated or ignored.
        retry_wait: a wait strategy of tenacity's in place of Envoy's backoff.
        retry_stop: a stop strategy of tenacity's in place of a route's `attempts`. What is safe to send again, the
            retry budget and the deadline bound it all the same.
        breaker_listeners: pybreaker's listeners, told where it happens: they must be quick.
        breaker_storage: makes pybreaker's storage for a cluster's name, so that processes share a breaker.

    Raises:
        SettingsError: a value is not allowed.

    Example:
        >>> mesh = Mesh(registry="file:///etc/mesh")                                # doctest: +SKIP
        >>> client = httpx.Client(transport=mesh.transport())                       # doctest: +SKIP
        >>> client.get("http://reviews/42")                                         # doctest: +SKIP
    """

    def __init__(
        self,
        registry: str | Registry | None = None,
        *,
        service: str | None = None,
        namespace: str | None = None,
        address: str | None = None,
        labels: Mapping[str, str] | None = None,
        locality: str | None = None,
        outbound: str | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        identity: str | None = None,
        trusted_hops: str | Sequence[str] | None = None,
        limits: str | None = None,
        strict: bool = False,
        retry_wait: WaitBaseT | None = None,
        retry_stop: StopBaseT | None = None,
        breaker_listeners: Sequence[CircuitBreakerListener] = (),
        breaker_storage: StorageFactory | None = None,
    ) -> None:
        given = registry if registry is None or isinstance(registry, str) else registry.url
        settings = settings_from(
            service=service,
            namespace=namespace,
            registry=given,
            address=address,
            labels=labels,
            locality=locality,
            outbound=outbound,
            state_dir=state_dir,
            identity=identity,
            trusted_hops=trusted_hops,
            limits=limits,
        )
        name = "MESHLIB_IDENTITY" if identity is None else "identity"
        check_url(settings.identity, name, service=settings.service, registry=settings.registry)
        if registry is None or isinstance(registry, str):
            open_registry(settings.registry)  # a wrong URL is an error now, not at the first call
            make_registry = functools.partial(open_registry, settings.registry, settings.service)
        else:
            make_registry = functools.partial(_given, registry)
        no_strategy = retry_wait is None and retry_stop is None
        super().__init__(
            settings,
            Choices(
                make_registry,
                functools.partial(BreakerBridge, breaker_listeners, breaker_storage),
                strict,
                None if no_strategy else RetryStrategy(retry_wait, retry_stop),
            ),
        )
        _meshes.add(self)

    def __repr__(self) -> str:
        version = self.plan.version if self.plan is not None else "not open"
        return f"<Mesh {self.settings.registry} namespace={self.settings.namespace} {version}>"

    def open(self) -> Self:
        """Start, and wait at most 5 s for the first configuration. Calling it is optional."""
        self.ready()
        return self

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self.aready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import anyio

        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.close)

    def serve(self, address: str | tuple[str, int] | None = None) -> None:
        """Register this service from now on; it is kept registered until `withdraw` or the end of the process.

        Args:
            address: `host:port` others reach us at; without it MESHLIB_ADDRESS.

        Raises:
            SettingsError: there is no service name, or no address.
        """
        settings = self.settings
        if isinstance(address, str):
            address = parse_address(address, "address")
        found = settings.address or address
        if settings.service is None:
            raise SettingsError("MESHLIB_SERVICE is not set: a service needs a name to be registered by")
        if found is None:
            raise SettingsError("MESHLIB_ADDRESS is not set, and no address was given to register")
        with self._lock:
            agent = self._started()
            if self._served == found:
                return  # two middleware around one application
            self._served = found
            self._announce(agent, *found)
        # Behind a hop that is trusted, the hop speaks TLS.
        if self.identity is not None and not self.takes_tls and not settings.trusted_hops:
            log.warning("%s", _PLAIN)

    @overload
    def transport(self, client: None = None, **options: Any) -> httpx.BaseTransport: ...
    @overload
    def transport(self, client: ModuleType, **options: Any) -> Any: ...
    def transport(self, client: ModuleType | None = None, **options: Any) -> Any:
        """A transport for `httpx.Client`, or for the client of `client` (httpx2).

        Args:
            client: the module; httpx by default.
            options: `http2`, `verify` and `trust_env`, as for httpx; anything else goes to the client's own transport,
                which serves the hosts outside the mesh.
        """
        return self._transport(client, "sync", options)

    @overload
    def async_transport(self, client: None = None, **options: Any) -> httpx.AsyncBaseTransport: ...
    @overload
    def async_transport(self, client: ModuleType, **options: Any) -> Any: ...
    def async_transport(self, client: ModuleType | None = None, **options: Any) -> Any:
        """A transport for `httpx.AsyncClient`, or for the async client of `client` (httpx2); see `transport`."""
        return self._transport(client, "asynchronous", options)

    def _transport(self, client: ModuleType | None, kind: str, options: dict[str, Any]) -> Any:
        from meshlib.wire.transport import Options, transports

        if client is None:
            import httpx

            client = httpx
        known = {name: options.pop(name) for name in ("http2", "verify", "trust_env") if name in options}
        return getattr(transports(client), kind)(self, Options(**known, extra=tuple(options.items())))

    def explain(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Explanation:
        """Why a request would go where it goes; nothing is sent.

        Args:
            method: of the request.
            url: as it would be given to the client.
            headers: of the request.
        """
        from meshlib.explain import explain

        plan = self.ready()
        name = plan.unasked((urlsplit(url).hostname or "").lower())
        if name is not None:
            plan = self.look_up(name)
        return explain(plan, method, url, headers or {}, time.monotonic())

    def explain_inbound(
        self,
        method: str,
        target: str,
        *,
        caller: str = "",
        headers: Mapping[str, str] | None = None,
        address: str = "",
        port: int | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> InboundExplanation:
        """Why a request to this service would come in, or wouldn't; nobody is asked, and nothing is counted.

        Args:
            method: of the request.
            target: its path and query, or a URL.
            caller: SPIFFE ID of the caller's verified identity, "" for none.
            headers: of the request.
            address: the caller's IP address.
            port: of ours that it comes to.
            claims: what a verified token says; None: there is no token.

        Raises:
            ValueError: the caller is no SPIFFE ID, or the target neither a path nor a URL.
        """
        from meshlib.explain_inbound import explain_inbound, visit_of

        visit = visit_of(
            method,
            target,
            caller=caller,
            headers=headers,
            address=address,
            port=port,
            claims=claims,
            host=self.settings.service or "",
        )
        plan = self.ready()
        return explain_inbound(plan.inbound, plan.version, visit)

    def status(self) -> Status:
        """What is in force, how old it is, and what is wrong."""
        now, limits, keys = time.monotonic(), self.counts.trouble, self.keys.trouble
        status = status_of(self.settings, self.plan, self._agent, self.identity, now, limits, keys)
        return status._replace(decisions=self.decisions.counts())


def _given(registry: Registry) -> Registry:
    return registry


_meshes: weakref.WeakSet[Mesh] = weakref.WeakSet()
_default: Mesh | None = None
_default_lock = threading.Lock()


def default_mesh() -> Mesh:
    """The mesh that clients and middleware share when they are given none: settings from MESHLIB_* variables."""
    global _default  # noqa: PLW0603 - one for each process is the point
    with _default_lock:
        if _default is None:
            _default = Mesh()
        return _default


def _after_fork() -> None:
    global _default_lock  # noqa: PLW0603 - the parent's may be held
    _default_lock = threading.Lock()
    for mesh in list(_meshes):
        mesh._after_fork()


def _at_exit() -> None:
    for mesh in list(_meshes):
        mesh.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
