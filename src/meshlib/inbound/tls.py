"""`server_ssl_context`: the mesh's TLS for a server."""

from __future__ import annotations

import os
import ssl
import threading
import weakref

from meshlib.errors import SettingsError
from meshlib.identity.incoming import ServerContext
from meshlib.mesh import Mesh, default_mesh
from meshlib.plan.inbound import Inbound

__all__ = ["server_ssl_context"]


def server_ssl_context(mesh: Mesh | None = None) -> ssl.SSLContext:
    """The TLS context of a server in the mesh; one for each mesh, however often it is asked for.

    Certificate, roots and PeerAuthentication's mode follow the mesh in process, for connections from then on. In mode
    PERMISSIVE one port takes plain text and TLS.

    Args:
        mesh: by default the one that MESHLIB_* variables describe, shared by the whole process.

    Raises:
        SettingsError: a MESHLIB_* variable is not allowed, or MESHLIB_IDENTITY is `none`.
        IdentityError: there is no certificate within 5 s.

    Example:
        >>> config = uvicorn.Config(app, ssl_context_factory=lambda *_: server_ssl_context())   # doctest: +SKIP
    """
    mesh = mesh or default_mesh()
    with _lock:
        identity = mesh.identity
        found = _contexts.get(mesh)
        if found is not None and found.identity is identity:
            return found
        if identity is None:
            raise SettingsError(
                "MESHLIB_IDENTITY is 'none', and a server's TLS needs a certificate; expected files:///directory, "
                "consul or spiffe:///socket"
            )
        mesh.takes_tls = True  # before anything can register: others are told of it then
        mesh.open()
        reference = weakref.ref(mesh)
        made = ServerContext(identity, lambda: _inbound(reference()))
        made.wait()
        _contexts[mesh] = made
        return made


def _inbound(mesh: Mesh | None) -> Inbound:
    plan = mesh.plan if mesh is not None else None
    # While there is no plan the middleware lets nobody in; the connection may wait for it.
    return plan.inbound if plan is not None else Inbound()


_contexts: weakref.WeakKeyDictionary[Mesh, ServerContext] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _after_fork() -> None:
    """In a child: the lock may be held by a thread that is gone, and the mesh has to be opened again."""
    global _lock  # noqa: PLW0603 - one for each process is the point
    _lock = threading.Lock()
    _contexts.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
