"""What admission holds is let go: with every mesh that is closed, and with every request that is given up."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import io
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import anyio
import pytest

from meshlib import ASGIMiddleware, Mesh, WSGIMiddleware
from meshlib.registries.memory import MemoryRegistry
from meshlib.resources import Source, load
from tests.support import eventually, eventually_async
from tests.support.issuing import IssuingServer
from tests.support.redis import RedisServer
from tests.support.tokens import Issuer

SIGNER = Issuer("ES256", "one", "two")

ROUNDS = 10
PLACES = 3

DOCUMENTS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens}}
spec: {{jwtRules: [{{issuer: "{url}", jwksUri: "{url}/keys", timeout: 60s}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: ask}}
spec:
  action: CUSTOM
  provider: {{name: authz}}
  rules: [{{to: [{{operation: {{paths: ["/all", "/asked", "/read"]}}}}]}}]
---
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {{name: inbound}}
spec:
  extensionProviders:
  - name: authz
    envoyExtAuthzHttp:
      service: 127.0.0.1
      port: {port}
      timeout: 60s
      includeRequestBodyInCheck: {{maxRequestBytes: 10}}
  rateLimits:
  - {{name: own, requests: 1000000, per: 1s}}
  - name: shared
    requests: 1000000
    per: 1s
    scope: GLOBAL
    match: [{{uri: {{exact: /all}}}}, {{uri: {{exact: /counted}}}}]
  concurrency: {{maxRequests: 3, maxWait: 60s}}
  overload: {{loopLag: 10s, queueTime: 60s}}
  faults:
  - match: [{{uri: {{exact: /paused}}}}]
    fault: {{delay: {{fixedDelay: 60s, percentage: {{value: 100}}}}}}
"""


class World:
    """An issuer that is an authorizer as well, and services that are told by documents to use it, and Redis.

    Attributes:
        held: clear to have the issuer and the authorizer hang.
    """

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.server = IssuingServer()
        self.held = threading.Event()
        self.held.set()
        self._redis = redis
        self._folder = folder
        for path in ("/all", "/asked", "/read"):
            self.server.put(path, self._answer(b"{}"))
        self.server.put("/keys", self._answer(json.dumps(SIGNER.key_set("one")).encode()))
        url, port = self.server.url, self.server.url.rpartition(":")[2]
        loaded = load([Source("the test", DOCUMENTS.format(url=url, port=port).encode())])
        assert not loaded.problems, [problem.message for problem in loaded.problems]
        self._resources = loaded.resources

    def _answer(self, text: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            self.held.wait(30)
            with contextlib.suppress(OSError):
                handler.send_response(200)
                handler.send_header("content-length", str(len(text)))
                handler.end_headers()
                handler.wfile.write(text)

        return answer

    def mesh(self) -> Mesh:
        registry = MemoryRegistry()
        asyncio.run(registry.apply(self._resources))
        return Mesh(registry, state_dir=self._folder, limits=f"{self._redis.url}?timeout=20s")

    def token(self, kid: str = "one") -> str:
        return SIGNER.token(kid, iss=self.server.url, exp=time.time() + 600).decode()


@pytest.fixture
def world(redis: RedisServer, tmp_path: Path) -> Iterator[World]:
    made = World(redis, tmp_path)
    yield made
    made.held.set()
    made.server.close()


class Caller:
    """Makes requests of one service's middlewares.

    Attributes:
        inside: requests that have reached the application.
        stay: until when they stay there; None: they don't.
        entered: requests that wait for something before that.
    """

    def __init__(self, mesh: Mesh, token: str) -> None:
        self.inside = self.entered = 0
        self.stay: anyio.Event | None = None
        self._asgi = ASGIMiddleware(self._asgi_app, mesh)
        self._wsgi = WSGIMiddleware(self._wsgi_app, mesh)
        performers = self._asgi._gate.async_performers
        for effect, perform in list(performers.items()):
            performers[effect] = functools.partial(self._noted, perform)
        self._headers = [(b"host", b"reviews"), (b"authorization", b"Bearer " + token.encode())]

    async def _noted(self, perform: Callable[[Any], Awaitable[Any]], effect: Any) -> Any:
        self.entered += 1
        return await perform(effect)

    async def acall(self, path: str) -> int:
        """One request to the ASGI application; its status."""
        sent: list[Any] = []

        async def receive() -> Any:
            if path == "/read":
                self.entered += 1
                await anyio.sleep(60)
            return {"type": "http.request", "body": b"body", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "headers": self._headers, "scheme": "http"}
        await self._asgi(scope, receive, send)
        status: int = sent[0]["status"]
        return status

    def call(self, path: str) -> int:
        """One request to the WSGI application; its status."""
        told: list[str] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "wsgi.input": io.BytesIO(b"body"),
            "CONTENT_LENGTH": "4",
            "gunicorn.socket": object(),
            **{"HTTP_" + name.decode().upper(): value.decode() for name, value in self._headers},
        }
        list(self._wsgi(environ, lambda status, headers: told.append(status)))
        return int(told[0][:3])

    async def _asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        if self.stay is not None:
            await self.stay.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def _wsgi_app(self, environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b""]


def held() -> tuple[int, int, int]:
    """Threads, open files and meshes of the process."""
    gc.collect()
    meshes = sum(type(one) is Mesh for one in gc.get_objects())
    return threading.active_count(), len(os.listdir("/proc/self/fd")), meshes


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts what Linux tells of open files")
def test_meshes_that_come_and_go_leave_nothing_behind(world: World) -> None:
    def one() -> None:
        with world.mesh() as mesh:
            caller = Caller(mesh, world.token())
            assert asyncio.run(caller.acall("/all")) == 200
            assert caller.call("/all") == 200

    for _ in range(3):
        one()
    before = held()
    for _ in range(ROUNDS):
        one()
    eventually(lambda: all(now <= then for now, then in zip(held(), before, strict=True)), 10.0)


WAITS = {
    "for a place": "/",
    "for keys": "/keys",
    "for an authorizer": "/asked",
    "for a shared count": "/counted",
    "for a body": "/read",
    "for the end of a fault": "/paused",
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("wait", WAITS)
def test_who_gives_up_while_he_waits_leaves_nothing_behind(
    wait: str, backend: str, world: World, redis: RedisServer
) -> None:
    path, many = WAITS[wait], 10

    async def main() -> None:
        caller = Caller(mesh, world.token("two" if wait == "for keys" else "one"))
        known = Caller(mesh, world.token())
        async with anyio.create_task_group() as inside, anyio.create_task_group() as waiting:
            if wait == "for a place":
                known.stay = anyio.Event()
                for _ in range(PLACES):
                    inside.start_soon(known.acall, "/")
                await eventually_async(lambda: known.inside == PLACES)
            for _ in range(many):
                waiting.start_soon(caller.acall, path)
            await eventually_async(lambda: caller.entered >= many)
            waiting.cancel_scope.cancel()
            if known.stay is not None:
                known.stay.set()
        assert (places.inside, places.waiting, caller.inside) == (0, 0, 0)
        world.held.set()
        if wait == "for a shared count":
            redis.resume()
        assert await known.acall("/all") == 200

    with world.mesh() as mesh:
        places = mesh._store.inbound.load.places
        assert asyncio.run(Caller(mesh, world.token()).acall("/all")) == 200
        world.held.clear()
        if wait == "for a shared count":
            redis.pause()
        anyio.run(main, backend=backend)
