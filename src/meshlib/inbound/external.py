"""Asking external authorizers, through the mesh: discovery, mTLS, breakers and the deadline hold as for any call."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from meshlib.context import deadline, remaining
from meshlib.errors import MeshError
from meshlib.inbound.checks import MOST_BODY, Question, question_of, said_of
from meshlib.inbound.effects import Ask, Said
from meshlib.wire.forking import renew_in_children

if TYPE_CHECKING:
    import httpx

    from meshlib.mesh import Mesh

__all__ = ["Authorizers"]

LONGEST_WHY = 300


class Authorizers:
    """Performs `Ask`. One for each mesh (`mesh.part(Authorizers)`), for any number of threads and event loops.

    What comes of an authorizer, an answer or none, is told as `Said`, never raised.

    Args:
        mesh: through which they are asked.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._lock = threading.Lock()
        renew_in_children(self)
        self._sync: Any = None
        self._async: Any = None

    def after_fork(self) -> None:
        """See `Forkable`; the transports look after their connections themselves."""
        self._lock = threading.Lock()

    def ask(self, ask: Ask) -> Said:
        """Ask, and wait for the answer."""
        asking = _Asking(ask)
        request = asking.request()
        if request is None:
            return asking.said
        with self._lock:
            self._sync = self._sync or self._mesh.transport(trust_env=False)  # no proxy stands between
            transport: Any = self._sync
        with asking.catching(), deadline(asking.timeout):
            response = transport.handle_request(request)
            with contextlib.closing(response.stream) as stream:
                asking.hear(response)
                for chunk in stream:
                    if not asking.hear_more(chunk):
                        break
                else:
                    asking.heard_all()
        return asking.end()

    async def aask(self, ask: Ask) -> Said:
        """`ask` without blocking the event loop."""
        import anyio

        asking = _Asking(ask)
        request = asking.request()
        if request is None:
            return asking.said
        with self._lock:
            self._async = self._async or self._mesh.async_transport(**_async_options())
            transport: Any = self._async
        # The scope bounds hosts outside the mesh, too, of which our deadline knows nothing.
        with anyio.move_on_after(asking.timeout), asking.catching(), deadline(asking.timeout):
            response = await transport.handle_async_request(request)
            async with contextlib.aclosing(response.stream) as stream:
                asking.hear(response)
                async for chunk in stream:
                    if not asking.hear_more(chunk):
                        break
                else:
                    asking.heard_all()
        return asking.end()

    def close(self) -> None:
        """Close the connections; they are opened again when they are needed."""
        with self._lock:
            sync, self._sync, asynchronous, self._async = self._sync, None, self._async, None
        if sync is not None:
            sync.close()
        if asynchronous is not None:
            asynchronous.let_go()  # of connections outside the mesh none is kept


class _Asking:
    """One question and what becomes of it."""

    def __init__(self, ask: Ask) -> None:
        self.timeout = ask.provider.envoy_ext_authz_http.timeout
        if (left := remaining()) is not None and left < self.timeout:
            self.timeout = left
        self.said = Said(None, why=f"it didn't answer within {self.timeout:g} s")
        self._ask = ask
        self._ends = time.monotonic() + self.timeout
        self._response: httpx.Response | None = None
        self._body: bytearray | None = None
        self._whole = False

    def request(self) -> httpx.Request | None:
        """What to send; None: there is nothing to ask, and `said` is the answer."""
        found = question_of(self._ask)
        if isinstance(found, Said):
            self.said = found
            return None
        try:
            return _request(found, self.timeout)
        except ValueError as error:
            # What a caller can bring about must not look like an authorizer that can't be asked.
            self.said = Said(400, why=f"it can't be put into a check: {str(error)[:LONGEST_WHY]}")
            return None

    @contextlib.contextmanager
    def catching(self) -> Iterator[None]:
        """What goes wrong in here becomes `said`."""
        import httpx

        try:
            yield
        except httpx.LocalProtocolError as error:
            self.said = Said(400, why=f"it can't be put into a check: {str(error)[:LONGEST_WHY]}")
        except (httpx.HTTPError, httpx.StreamError, MeshError, OSError) as error:
            words = str(error).partition("\n")[0][:LONGEST_WHY]
            self.said = Said(None, why=words or type(error).__name__)

    def hear(self, response: httpx.Response) -> None:
        """The head of the response is there."""
        self._response = response
        self._body = bytearray()

    def hear_more(self, chunk: bytes) -> bool:
        """A piece of the body; whether more is wanted."""
        assert self._body is not None
        self._body += chunk
        # A trickle would outlast every timeout for a single read.
        return len(self._body) <= MOST_BODY and time.monotonic() < self._ends

    def heard_all(self) -> None:
        """The body has ended."""
        self._whole = True

    def end(self) -> Said:
        """What came of it."""
        if self._response is not None:
            body = bytes(self._body or b"") if self._whole else None
            return said_of(self._response.status_code, self._response.headers.raw, body)
        if self.said.status is None and remaining() == 0:
            # It is the caller's own doing: it mustn't get in where an authorizer fails open.
            return Said(504, why="its deadline ran out before the authorizer had answered")
        return self.said


def _request(question: Question, timeout: float) -> httpx.Request:
    import httpx

    try:
        return httpx.Request(
            question.method,
            question.url,
            headers=list(question.headers),
            content=question.body,
            # To ask twice does no harm: so a connection that the authorizer has just closed costs nobody a refusal.
            extensions={"timeout": httpx.Timeout(timeout).as_dict(), "meshlib": {"idempotent": True}},
        )
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from error


def _async_options() -> dict[str, Any]:
    """No connection outside the mesh is kept: it belongs to its event loop, and we may be closed on another."""
    import httpx

    return {"trust_env": False, "limits": httpx.Limits(max_keepalive_connections=0)}
