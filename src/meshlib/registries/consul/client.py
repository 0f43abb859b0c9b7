"""The client of one Consul agent: py-consul's calls on httpx, every answer bounded, every failure a RegistryError.

It belongs to the agent's thread and to the loop it is first used on; on another, after a close or in a forked child, it
begins afresh. httpx's transport is used bare here: proxies and credentials of the environment are not for Consul, and
httpx's client would write a line to the application's log for each answer.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import httpx
import msgspec

from meshlib.errors import RegistryError
from meshlib.registries.consul.address import ConsulSettings, read_token
from meshlib.registries.consul.connections import connections
from meshlib.registries.consul.refusals import way_out

if TYPE_CHECKING:
    from meshlib.registries.consul.calls import Calls

__all__ = ["CONNECT_DISABLED", "Answer", "ConsulClient", "Params", "Refused"]

Params = Sequence[tuple[str, str]]

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""The largest answer taken: 100 000 instances have some 40 MB."""

TIMEOUT = 10.0
"""Seconds for a request that isn't held back; and what a blocking query gets besides its wait and Consul's jitter."""

BODY_WAIT = 30.0
"""Seconds from the head of an answer to its end: nobody waits for a change any more."""

CONNECT_TIMEOUT = 3.0

AT_ONCE = 16
"""Reads that aren't held back, at once: a thousand services are no reason to fall upon the agent."""

_TIMEOUTS = httpx.Timeout(None, connect=CONNECT_TIMEOUT).as_dict()

log = logging.getLogger("meshlib.registries")

OVERHEARD = (
    "{} is asked in plain text over a network, that hears the ACL token and the keys of identities from there;"
    " ask an agent on this machine, or set scheme=https"
)

CONNECT_DISABLED = "connect must be enabled"
"""What Consul says, in lower case, when it has no CA."""


class Answer(msgspec.Struct, frozen=True):
    """What Consul said.

    Attributes:
        data: the body, b"" for 404.
        index: X-Consul-Index, 0 when there is none that is a number.
        headers: by their names in lower case.
        status: 200 or, where it was allowed, 404.
    """

    data: bytes
    index: int
    headers: Mapping[str, str]
    status: int = 200


class Refused(RegistryError):
    """Consul answered, and not what was asked for.

    Attributes:
        status: of its answer, as 403.
    """

    status: int = 0


class ConsulClient:
    """Asks one Consul agent.

    Args:
        settings: where it is, and how to be let in.

    Attributes:
        settings: as given.
        service: this process's, for messages; "" as long as it isn't known.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self.settings = settings
        self.service = ""
        self._transport: httpx.AsyncBaseTransport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._token: tuple[object, str] = (None, "")
        self._few = asyncio.Semaphore(AT_ONCE)

    @property
    def url(self) -> str:
        """The registry's URL, without any secret."""
        return self.settings.url

    @cached_property
    def calls(self) -> Calls:
        """py-consul's typed calls, to be awaited; their failures are RegistryErrors too."""
        from meshlib.registries.consul.calls import Calls  # it imports requests, and only who registers needs it

        return Calls(self)

    def error(self, problem: str, way_out: str = "") -> RegistryError:
        """An error of this Consul."""
        return RegistryError(self.url, problem, way_out)

    async def get(
        self,
        path: str,
        params: Params = (),
        *,
        index: int | None = None,
        wait: float | None = None,
        missing_ok: bool = False,
    ) -> Answer:
        """GET `path`.

        Args:
            path: from `/v1`, escaped.
            params: the query's parameters.
            index: hold the answer back until the index has moved on from this.
            wait: seconds it may be held back.
            missing_ok: whether 404 is an answer, with no data.

        Raises:
            RegistryError: there was no good answer.
        """
        asked = list(params)
        if index is not None and wait is not None:
            asked += [("index", str(index)), ("wait", f"{wait:.0f}s")]
            # Consul adds up to a sixteenth, so that not everybody comes back at once.
            timeout = TIMEOUT + wait + wait / 16
            return await self.request("GET", path, asked, timeout=timeout, missing_ok=missing_ok)
        self._settle_here()
        async with self._few:
            return await self.request("GET", path, asked, missing_ok=missing_ok)

    async def put(self, path: str, params: Params = (), data: bytes = b"") -> Answer:
        """PUT `data`. Raises RegistryError."""
        return await self.request("PUT", path, params, data)

    async def post(self, path: str, params: Params = (), data: bytes = b"") -> Answer:
        """POST `data`. Raises RegistryError."""
        return await self.request("POST", path, params, data)

    async def delete(self, path: str, params: Params = ()) -> Answer:
        """DELETE. Raises RegistryError."""
        return await self.request("DELETE", path, params)

    async def request(
        self,
        method: str,
        path: str,
        params: Params = (),
        data: bytes = b"",
        *,
        timeout: float = TIMEOUT,
        missing_ok: bool = False,
    ) -> Answer:
        """Any request, within `timeout` seconds from the first byte sent to the last received. Raises RegistryError."""
        headers = self._headers()
        transport = self._opened()
        begun = False
        try:
            async with asyncio.timeout(timeout) as limit:
                request = httpx.Request(
                    method,
                    self.settings.base + path,
                    params=list(params),
                    content=data or None,
                    headers=headers,
                    extensions={"timeout": _TIMEOUTS},
                )
                response = await transport.handle_async_request(request)
                # Whoever has begun to answer has nothing more to wait for: a trickle isn't waited for as a change is.
                begun = True
                limit.reschedule(min(limit.when() or math.inf, asyncio.get_running_loop().time() + BODY_WAIT))
                try:
                    body = await self._body(method, path, response)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            lack, seconds = (
                ("no whole answer within", min(timeout, BODY_WAIT)) if begun else ("no answer within", timeout)
            )
            raise self.error(f"{lack} {seconds:.0f} s", "see the agent's log") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._unreachable(error) from error
        return self._judged(method, path, response, body, missing_ok)

    async def aclose(self) -> None:
        """Close every connection."""
        transport, self._transport = self._transport, None
        if transport is not None and self._loop is asyncio.get_running_loop():
            await transport.aclose()

    async def _body(self, method: str, path: str, response: httpx.Response) -> bytes:
        chunks, size = [], 0
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                problem = f"the answer to {method} {path} has more than {MAX_ANSWER_BYTES} bytes"
                raise self.error(problem, "is that Consul?")
            chunks.append(chunk)
        return b"".join(chunks)

    def _judged(self, method: str, path: str, response: httpx.Response, body: bytes, missing_ok: bool) -> Answer:
        status = response.status_code
        if status != 200 and not (status == 404 and missing_ok):
            said = " ".join(body[:200].decode("utf-8", "replace").split()) or response.reason_phrase
            problem = f"{method} {path} was answered {status}: {said}"
            known = {"prefix": self.settings.prefix, "service": self.service}
            refused = Refused(self.url, problem, way_out(status, said, method, path, **known))
            refused.status = status
            raise refused
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self.error(f"the answer to {method} {path} is compressed, which nobody asked for", "is that Consul?")
        index = response.headers.get("x-consul-index", "")
        number = int(index) if index.isascii() and index.isdigit() and len(index) < 20 else 0
        return Answer(b"" if status == 404 else body, number, response.headers, status)

    def _unreachable(self, error: Exception) -> RegistryError:
        reason = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectTimeout):
            reason = f"no connection within {CONNECT_TIMEOUT:.0f} s"
        if isinstance(error, httpx.RemoteProtocolError):
            # So an agent turns away who has too many connections; those of blocking queries outlive who asked.
            return self.error(
                f"can't be reached: {reason}", "did the agent stop? or is its limits.http_max_conns_per_client reached?"
            )
        way_out = "is the Consul agent running there?"
        if "WRONG_VERSION_NUMBER" in reason:
            way_out = (
                "that port doesn't speak TLS: name the agent's HTTPS port (8501 by habit), or leave scheme=https out"
            )
        return self.error(f"can't be reached: {reason}", way_out)

    def _headers(self) -> dict[str, str]:
        headers = {"accept-encoding": "identity", "user-agent": "meshlib"}
        if auth := self.settings.auth:
            headers["authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
        if token := self._current_token():
            headers["x-consul-token"] = token
        return headers

    def _current_token(self) -> str:
        path = self.settings.token_file
        if not path:
            return self.settings.token
        try:
            status = os.stat(path)
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._token[0] != mark:
                self._token = mark, read_token(path)
        except (OSError, ValueError) as error:
            # Without the cause: a file of ours that is missing is no registry that is yet to be made.
            raise self.error(f"its token file {path} can't be read: {error}", "see token_file") from None
        return self._token[1]

    def _settle_here(self) -> None:
        """Leave behind what is of another loop: it can't be used on this one, nor closed from here."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._transport, self._few = loop, None, asyncio.Semaphore(AT_ONCE)

    def _opened(self) -> httpx.AsyncBaseTransport:
        """The connections; made late, for a TLS context takes 50 ms to build."""
        self._settle_here()
        if self._transport is None:
            settings = self.settings
            if settings.overheard:
                log.warning("%s", OVERHEARD.format(self.url))
            try:
                self._transport = connections(settings)
            except (OSError, ValueError) as error:
                problem = f"its TLS files can't be used: {error}"
                way_out = "see ca_file, ca_path, cert_file and key_file, or CONSUL_CACERT and others"
                # Without the cause: a file of ours that is missing is no registry that is yet to be made.
                raise self.error(problem, way_out) from None
        return self._transport
