"""meshlib: a service mesh that lives inside a Python process.

    import meshlib

    async with meshlib.AsyncClient() as client:
        reply = await client.get("http://reviews/42")

Names are imported when they are first used, so that `import meshlib` costs next to nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.client import AsyncClient, Client
    from meshlib.context import deadline, priority, remaining
    from meshlib.errors import (
        AttemptTimeout,
        BadResponse,
        CallError,
        CircuitOpen,
        ConnectFailed,
        ConnectionBroken,
        DeadlineExceeded,
        IdentityError,
        InvalidDocuments,
        MeshError,
        NoEndpoints,
        Overflow,
        RegistryError,
        SettingsError,
        UnknownHost,
    )
    from meshlib.inbound.asgi import ASGIMiddleware
    from meshlib.inbound.tls import server_ssl_context
    from meshlib.inbound.wsgi import WSGIMiddleware
    from meshlib.mesh import Mesh, default_mesh

__all__ = [
    "ASGIMiddleware",
    "AsyncClient",
    "AttemptTimeout",
    "BadResponse",
    "CallError",
    "CircuitOpen",
    "Client",
    "ConnectFailed",
    "ConnectionBroken",
    "DeadlineExceeded",
    "IdentityError",
    "InvalidDocuments",
    "Mesh",
    "MeshError",
    "NoEndpoints",
    "Overflow",
    "RegistryError",
    "SettingsError",
    "UnknownHost",
    "WSGIMiddleware",
    "deadline",
    "default_mesh",
    "priority",
    "remaining",
    "server_ssl_context",
]

_ROOMS = {
    "ASGIMiddleware": "inbound.asgi",
    "AsyncClient": "client",
    "Client": "client",
    "Mesh": "mesh",
    "WSGIMiddleware": "inbound.wsgi",
    "deadline": "context",
    "default_mesh": "mesh",
    "priority": "context",
    "remaining": "context",
    "server_ssl_context": "inbound.tls",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'meshlib' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"meshlib.{_ROOMS.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


def _warn_of_the_namesake() -> None:
    """Warn when the 3-D geometry library of the same name is installed: both own `meshlib/__init__.py`."""
    for place in sys.path:
        if os.path.exists(os.path.join(place, "meshlib", "mrmeshpy.pyi")):
            warnings.warn(
                f"the distribution meshlib-core (3-D geometry) in {place} has a package named meshlib as well, and one "
                "overwrites the other: keep servicemesh and meshlib-core in environments of their own",
                RuntimeWarning,
                stacklevel=2,
            )


_warn_of_the_namesake()
