"""Response bodies as httpx reads them; their end releases the ticket."""

from __future__ import annotations

import time
import warnings
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from meshlib import errors
from meshlib.call.call import Call
from meshlib.call.effects import Failure
from meshlib.state.endpoint import Ticket
from meshlib.wire.message import WireError

__all__ = ["BodyClasses", "body_classes"]


class BodyClasses(NamedTuple):
    """The stream classes for one client library."""

    sync: type[Any]
    asynchronous: type[Any]


_made: dict[str, BodyClasses] = {}


def body_classes(client: ModuleType) -> BodyClasses:
    """The stream classes for `client` (httpx or httpx2), made at the first call."""
    made = _made.get(client.__name__)
    if made is None:
        made = _made[client.__name__] = BodyClasses(_sync_class(client), _async_class(client))
    return made


class MeshBody:
    """A response's body and the ticket of its attempt.

    The ticket is released exactly once: at the body's end, or when it is closed, or when it is forgotten.
    """

    __slots__ = ("_body", "_call", "_ended", "_request", "_ticket")
    _client: ModuleType

    def __init__(self, body: Any, ticket: Ticket, call: Call, request: Any) -> None:
        self._body = body
        self._ticket = ticket
        self._call = call
        self._request = request
        self._ended = False

    def _broken(self, error: WireError) -> NoReturn:
        """Raise for a body that broke off; it can't be retried, for part of it was handed out."""
        call = self._call
        now = time.monotonic()
        late = error.failure is Failure.TIMEOUT
        kind: type[errors.CallError] = errors.ConnectionBroken
        if late:
            expired = call.bounds_body and call.deadline is not None and now >= call.deadline
            kind = errors.DeadlineExceeded if expired else errors.AttemptTimeout
        elif error.failure is Failure.PROTOCOL:
            kind = errors.BadResponse
        words = "stopped coming in time" if late else "broke off"
        message = f"the response body of {call.host} {words}: {error}"
        broken = errors.for_client(kind, self._client)(message, call.evidence(now))
        broken.request = self._request
        raise broken from error

    def __del__(self) -> None:
        if not self._ticket.released:
            self._ticket.release()
            endpoint = self._ticket.endpoint.address
            warnings.warn(
                f"a response of {self._call.host} from {endpoint} was neither read to its end nor closed",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


def _async_class(client: ModuleType) -> type[Any]:
    class AsyncMeshBody(MeshBody, client.AsyncByteStream):  # type: ignore[misc, name-defined]  # made at run time
        """An async response body; its own iterator, because an async generator costs a microsecond more."""

        __slots__ = ("_chunks",)
        _client = client

        def __aiter__(self) -> AsyncIterator[bytes]:
            self._chunks = aiter(self._body)
            return self

        async def __anext__(self) -> bytes:
            try:
                chunk: bytes = await self._chunks.__anext__()
            except StopAsyncIteration:
                self._ended = True
                self._ticket.release()
                raise
            except BaseException as error:
                self._ticket.release()
                if isinstance(error, WireError):
                    self._broken(error)
                raise
            return chunk

        async def aclose(self) -> None:
            if not self._ended:
                self._ticket.release()
                await self._body.aclose()

    return AsyncMeshBody


def _sync_class(client: ModuleType) -> type[Any]:
    class SyncMeshBody(MeshBody, client.SyncByteStream):  # type: ignore[misc, name-defined]  # made at run time
        """A sync response body."""

        __slots__ = ()
        _client = client

        def __iter__(self) -> Iterator[bytes]:
            try:
                yield from self._body
                self._ended = True
            except WireError as error:
                self._broken(error)
            finally:
                self._ticket.release()

        def close(self) -> None:
            if not self._ended:
                self._ticket.release()
                self._body.close()

    return SyncMeshBody
