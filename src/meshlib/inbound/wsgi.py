"""The mesh's side of a WSGI application."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from meshlib.context import ATTEMPT_HEADER, DEADLINE_HEADER, INHERITED, PASSED_ON, PRIORITY_HEADER, Inherited, remaining
from meshlib.inbound.admit import given_up
from meshlib.inbound.arrival import inherit, prefer
from meshlib.inbound.bodies import CountedInput, CountedStart
from meshlib.inbound.bounds import body_bound, too_long
from meshlib.inbound.denials import Denial, Permit, phrase
from meshlib.inbound.draining import Draining
from meshlib.inbound.drivers import drive
from meshlib.inbound.early import EarlyInput, reads_bodies
from meshlib.inbound.effects import ReadBody
from meshlib.inbound.endings import EndingBody, StartResponse
from meshlib.inbound.gate import Gate
from meshlib.inbound.heads import Visitor, for_wsgi, wsgi_head, wsgi_headers
from meshlib.inbound.listening import listening
from meshlib.inbound.peers import wsgi_own, wsgi_peer
from meshlib.inbound.presence import Presence
from meshlib.mesh import Mesh, default_mesh
from meshlib.policy.arriving import Arriving

__all__ = ["WSGIMiddleware"]

App = Callable[[dict[str, Any], Any], Iterable[bytes]]

VARIABLES = tuple(
    ("HTTP_" + name.decode("ascii").upper().replace("-", "_"), name)
    for name in sorted((DEADLINE_HEADER, ATTEMPT_HEADER, PRIORITY_HEADER, *PASSED_ON))
)
"""The CGI variables of the headers that are read."""

FORWARDED = "HTTP_X_FORWARDED_CLIENT_CERT"


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
        # The deadline runs from here: waiting to be let in is part of it.
        inherited = inherit(_headers(environ), time.monotonic())
        if inherited is None:
            return _answer(start_response, self._gate.expired())
        token = INHERITED.set(inherited)
        try:
            if self._gate.on(self.mesh.plan):
                body = self._guarded(environ, start_response)
                inherited = INHERITED.get()
            else:
                body = self.app(environ, start_response)
        finally:
            INHERITED.reset(token)
        if _is_made(body, environ):
            return body
        return _Body(body, inherited)

    def _guarded(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve a request that has to be let in first."""
        gate = self._gate
        plan = self.mesh.plan
        if plan is None:
            self.mesh.ready()
            plan = self.mesh.plan
        headers = wsgi_headers(environ)
        peer, address = wsgi_peer(environ, gate.trust_domain)
        visitor = gate.visitor(peer, address, headers, b"\n".join([name for name, _ in headers]))
        arriving = wsgi_head(environ, headers, visitor, wsgi_own(environ))
        performing = gate.performers
        if plan is not None and reads_bodies(plan.inbound):
            performing = {**performing, ReadBody: EarlyInput(environ).read}
        answer = drive(gate.admission(plan, visitor, arriving), performing)
        if remaining() == 0 and type(answer) is Permit:
            answer = given_up(answer, gate.clocks.now())
        if type(answer) is Denial:
            gate.tell(answer, visitor, arriving)
            return _answer(start_response, answer)
        assert type(answer) is Permit
        app = self.app
        most = None if plan is None else body_bound(plan.inbound.bounds, arriving)
        if most is not None and "wsgi.input" in environ:
            app = _counting(app, most)
        if not answer.watched:
            return self._serve(app, environ, start_response, answer, visitor, arriving)
        start = StartResponse(start_response, answer, gate.clocks.now)
        try:
            body = self._serve(app, environ, start, answer, visitor, arriving)
        except BaseException:
            start.end()
            raise
        if _is_made(body, environ):
            start.end()
            return body
        return EndingBody(body, start.end)

    def _serve(
        self,
        app: App,
        environ: dict[str, Any],
        start_response: Any,
        permit: Permit,
        visitor: Visitor,
        arriving: Arriving,
    ) -> Iterable[bytes]:
        """Serve a request that was let in."""
        self._gate.tell(permit, visitor, arriving)
        if self._gate.claims:
            _claim(environ, visitor)
        if permit.priority:
            prefer(permit.priority)
        for_wsgi(environ, permit)
        return app(environ, start_response)


def _counting(app: App, most: int) -> App:
    """The application, unless the body turns out to be longer than `most` bytes."""

    def refuse(start_response: Any) -> list[bytes]:
        return _answer(start_response, too_long(most))

    def counted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"] = CountedInput(environ["wsgi.input"], most)
        return CountedStart(start_response, body, refuse).serve(lambda start: app(environ, start))

    return counted


def _is_made(body: Iterable[bytes], environ: dict[str, Any]) -> bool:
    """Whether nothing of the application's runs any more to make the body; a server may send a file by itself."""
    return type(body) in {list, tuple} or type(body) is environ.get("wsgi.file_wrapper")


def _answer(start_response: Any, denial: Denial) -> list[bytes]:
    texts = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in denial.headers]
    start_response(f"{denial.status} {phrase(denial.status)}", texts)
    return [denial.body]


def _claim(environ: dict[str, Any], visitor: Visitor) -> None:
    """Have `environ` say who the caller is."""
    environ["meshlib.peer"] = None if visitor.caller is None else str(visitor.caller)
    if not visitor.believed:
        environ.pop(FORWARDED, None)
    if visitor.peer.known and not visitor.peer.secure and "HTTP_X_FORWARDED_PROTO" not in environ:
        environ["wsgi.url_scheme"] = "http"  # on a port for both, a server takes every connection for TLS


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
