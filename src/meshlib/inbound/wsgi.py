"""The mesh's side of a WSGI application."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from meshlib.context import ATTEMPT_HEADER, DEADLINE_HEADER, INHERITED, PASSED_ON, Inherited
from meshlib.inbound.arrival import EXPIRED_BODY, EXPIRED_HEADERS, inherit
from meshlib.inbound.draining import Draining
from meshlib.inbound.gate import Entry, Gate
from meshlib.inbound.listening import listening
from meshlib.inbound.peers import wsgi_peer, wsgi_port
from meshlib.inbound.presence import Presence
from meshlib.mesh import Mesh, default_mesh
from meshlib.plan.plan import Plan
from meshlib.policy.intentions import RequestView

__all__ = ["WSGIMiddleware"]

App = Callable[[dict[str, Any], Any], Iterable[bytes]]

VARIABLES = tuple(
    ("HTTP_" + name.decode("ascii").upper().replace("-", "_"), name)
    for name in sorted((DEADLINE_HEADER, ATTEMPT_HEADER, *PASSED_ON))
)
"""The CGI variables of the headers that are read."""

FORWARDED = "HTTP_X_FORWARDED_CLIENT_CERT"
BARE = ("CONTENT_TYPE", "CONTENT_LENGTH")


class WSGIMiddleware:
    """A WSGI application in the mesh; what `ASGIMiddleware` is for ASGI.

    Build it where the application is built: from then on it waits for the server to listen, and registers the process.
    In gunicorn's master, which only loads the application (`--preload`), it does so in each worker.

    Args:
        app: the application.
        mesh: by default the one that MESHLIB_* variables describe, shared by the whole process.

    Raises:
        SettingsError: a MESHLIB_* variable is not allowed.

    Example:
        >>> application = WSGIMiddleware(application)                               # doctest: +SKIP
        >>> flask_app.wsgi_app = WSGIMiddleware(flask_app.wsgi_app)                 # doctest: +SKIP
    """

    def __init__(self, app: App, mesh: Mesh | None = None) -> None:
        self.app = app
        self.mesh = mesh or default_mesh()
        self._gate = Gate(self.mesh)
        if self.mesh.settings.service is None:
            return
        if _in_gunicorn_master():
            self._master = os.getpid()
            os.register_at_fork(after_in_child=self._after_fork)
        else:
            presence = Presence(self.mesh)
            present = listening()
            presence.watch(present, present)
            Draining(presence).install()

    def _after_fork(self) -> None:
        if os.getppid() != self._master:  # a child of a worker's serves nobody
            return
        presence = Presence(self.mesh)
        present = listening()
        presence.watch(present, present, then=Draining(presence).install_later())

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve one request."""
        gate = self._gate
        plan = self.mesh.plan
        if gate.on(plan):
            if plan is None:
                self.mesh.ready()
                plan = self.mesh.plan
            denial = _let_in(gate, plan, environ).denial
            if denial is not None:
                headers = [(name.decode(), value.decode()) for name, value in denial.headers]
                start_response(f"{denial.status} {HTTPStatus(denial.status).phrase}", headers)
                return [denial.body]
        inherited = inherit(_headers(environ), time.monotonic())
        if inherited is None:
            start_response("504 Gateway Timeout", [(name.decode(), value.decode()) for name, value in EXPIRED_HEADERS])
            return [EXPIRED_BODY]
        token = INHERITED.set(inherited)
        try:
            body = self.app(environ, start_response)
        finally:
            INHERITED.reset(token)
        if type(body) in {list, tuple} or type(body) is environ.get("wsgi.file_wrapper"):
            return body  # nothing of the application's runs any more; a server may send a file by itself
        return _Body(body, inherited)


def _let_in(gate: Gate, plan: Plan | None, environ: dict[str, Any]) -> Entry:
    """Judge a request, and have `environ` say what the application is to see."""
    peer, address = wsgi_peer(environ, gate.trust_domain)
    came = environ.get(FORWARDED)
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")

    def header(name: str) -> str | None:
        variable = name.upper().replace("-", "_")
        value = environ.get(variable if variable in BARE else "HTTP_" + variable)
        return None if value is None else _utf8(value)

    entry = gate.judge(
        plan,
        peer,
        address,
        [] if came is None else [came.encode("latin-1", "replace")],
        RequestView(environ["REQUEST_METHOD"], _utf8(path), header),
        wsgi_port(environ),
    )
    if gate.claims:
        environ["meshlib.peer"] = None if entry.caller is None else str(entry.caller)
        if not entry.believed:
            environ.pop(FORWARDED, None)
        if peer.known and not peer.secure and "HTTP_X_FORWARDED_PROTO" not in environ:
            environ["wsgi.url_scheme"] = "http"  # on a port for both, a server takes every connection for TLS
    return entry


def _utf8(text: str) -> str:
    """What WSGI gives as Latin-1 (PEP 3333)."""
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


class _Body:
    """A response's body, which the application may still be making: its context holds until it is closed."""

    __slots__ = ("_body", "_inherited", "_iterator")

    def __init__(self, body: Iterable[bytes], inherited: Inherited) -> None:
        self._body = body
        self._inherited = inherited
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = INHERITED.set(self._inherited)
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            return next(self._iterator)
        finally:
            INHERITED.reset(token)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is None:
            return
        token = INHERITED.set(self._inherited)
        try:
            close()
        finally:
            INHERITED.reset(token)


def _headers(environ: dict[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    for variable, name in VARIABLES:
        value = environ.get(variable)
        if value is not None:
            yield name, value.encode("latin-1", "replace")


def _in_gunicorn_master() -> bool:
    """Whether gunicorn is loading the application before it forks its workers."""
    if "gunicorn" not in sys.modules:
        return False
    modules = set()
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        modules.add(frame.f_globals.get("__name__", ""))
    return "gunicorn.arbiter" in modules and not any(name.startswith("gunicorn.workers.") for name in modules)
