"""The shortest form: httpx clients that live in the mesh."""

from __future__ import annotations

from typing import Any

import httpx

from meshlib.mesh import Mesh, default_mesh

__all__ = ["AsyncClient", "Client"]

TRANSPORT_OPTIONS = ("verify", "cert", "http1", "http2", "limits", "trust_env", "proxy")


class AsyncClient(httpx.AsyncClient):
    """`httpx.AsyncClient` in the mesh.

    Args:
        mesh: the mesh to live in; by default the one that MESHLIB_* variables describe, shared by the whole process.
        options: as for `httpx.AsyncClient`; the transport is ours, and `proxy` is for the hosts outside the mesh.

    Example:
        >>> async with AsyncClient() as client:                          # doctest: +SKIP
        ...     await client.get("http://reviews/42")
    """

    def __init__(self, *, mesh: Mesh | None = None, **options: Any) -> None:
        transport = (mesh or default_mesh()).async_transport(**_transport_options(options))
        super().__init__(transport=transport, **options)


class Client(httpx.Client):
    """`httpx.Client` in the mesh; see `AsyncClient`."""

    def __init__(self, *, mesh: Mesh | None = None, **options: Any) -> None:
        transport = (mesh or default_mesh()).transport(**_transport_options(options))
        super().__init__(transport=transport, **options)


def _transport_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of a client's options that a transport answers for; the proxy is taken out of them."""
    ours = {name: options[name] for name in TRANSPORT_OPTIONS if name in options}
    options.pop("proxy", None)  # httpx would send every call to it, past the mesh
    return ours
