"""What letting a request in costs an ASGI application, with everything that documents can ask for, beyond it bare."""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
import statistics
import time
from types import SimpleNamespace
from typing import Any

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from benchmarks.rounds import interleave, spread
from meshlib import ASGIMiddleware, Mesh
from meshlib.identity.handshakes import IncomingLink
from meshlib.identity.spiffe import SpiffeId, parse
from meshlib.plan.inbound import Inbound, inbound_of
from meshlib.plan.plan import Plan
from meshlib.plan.snapshot import Snapshot
from meshlib.resources import Source, load
from meshlib.state.inbound import InboundState

REQUESTS = 2000
CALLER = "spiffe://cluster.local/ns/default/sa/web"
ISSUER = "https://issuer.example"

RULES = "\n".join(
    f"""
  - from:
    - source:
        principals: ["cluster.local/ns/default/sa/client-{number}"]
        requestPrincipals: ["{ISSUER}/*"]
    to:
    - operation: {{methods: [GET, POST], paths: ["/area-{number}/*"]}}"""
    for number in range(9)
)

AUTHORIZATION = f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: callers}}
spec:
  rules:{RULES}
  - from:
    - source:
        principals: ["cluster.local/ns/default/sa/web"]
        requestPrincipals: ["{ISSUER}/*"]
    to:
    - operation: {{methods: [GET, POST], paths: ["/reviews/*"]}}
"""

TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens}}
spec:
  jwtRules:
  - issuer: {issuer}
    audiences: [reviews]
    forwardOriginalToken: true
    jwks: '{jwks}'
"""

RATE = """
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {name: rate}
spec:
  rateLimits:
  - {name: all, requests: 4000000000, per: 1s, by: [{principal: true}]}
"""

CONCURRENCY = """
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {name: concurrency}
spec:
  concurrency: {maxRequests: 100}
"""

BOTH = """
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {name: limits}
spec:
  rateLimits:
  - {name: all, requests: 4000000000, per: 1s, by: [{principal: true}]}
  concurrency: {maxRequests: 100}
"""


class Connection:
    """What the server's `receive` belongs to."""

    def __init__(self) -> None:
        self.transport = self
        link = IncomingLink(lambda: None, ssl.MemoryBIO(), ssl.MemoryBIO())  # type: ignore[arg-type,return-value]
        link.peer, link.secure = parse(CALLER), True
        self._told = {"ssl_object": link, "peername": ("192.0.2.7", 50000)}

    def get_extra_info(self, name: str) -> object:
        return self._told[name]

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}


START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"ok"}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The least that answers."""
    await send(START)
    await send(BODY)


async def send(message: Any) -> None:
    """A server that does nothing."""


def run(rounds: int) -> None:
    """Print what a request costs with each part by itself, and with all of them."""
    key = RSAKey.generate_key(2048, {"kid": "one"})
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": "jason", "aud": "reviews", "exp": now + 3600}
    token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, key)
    jwks = json.dumps(KeySet([key]).as_dict(private=False))
    tokens = TOKENS.format(issuer=ISSUER, jwks=jwks)
    everything = f"{AUTHORIZATION}---{tokens}---{BOTH}"
    without_tokens = AUTHORIZATION.replace(f'requestPrincipals: ["{ISSUER}/*"]', "")
    wrapped = {
        "identity alone": "",
        "10 ALLOW rules": without_tokens,
        "a cached token": tokens,
        "a rate limit": RATE,
        "concurrency": CONCURRENCY,
        "all of them": everything,
    }
    subjects = {"the application alone": app, "middleware, nothing to judge": _meshed(None)}
    subjects |= {name: _meshed(documents) for name, documents in wrapped.items()}
    headers = _headers(token)
    asyncio.run(_check(subjects, headers))
    timings = interleave(rounds, {name: lambda one=one: _measure(one, headers) for name, one in subjects.items()})
    bare = timings["the application alone"]
    print(f"an ASGI request with a deadline, over mTLS, {REQUESTS} a round, {rounds} rounds; µs [lowest … highest]")
    for name, values in timings.items():
        beyond = statistics.median([value - base for value, base in zip(values, bare, strict=True)])
        ratio = statistics.median([value / base for value, base in zip(values, bare, strict=True)])
        print(f"  {name:29}{spread(values)}   {beyond:+7.2f} µs   {ratio:5.2f} ×")


def _headers(token: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"host", b"reviews"),
        (b"accept", b"*/*"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"connection", b"keep-alive"),
        (b"user-agent", b"python-httpx/0.28.1"),
        (b"authorization", b"Bearer " + token.encode()),
        (b"x-envoy-expected-rq-timeout-ms", b"15000"),
        (b"x-request-id", b"6f9619ff-8b86-d011-b42d-00c04fc964ff"),
    ]


def _meshed(documents: str | None) -> Any:
    mesh = Mesh("memory:")
    inbound = Inbound()
    if documents is not None:
        mesh.settings = mesh.settings._replace(identity="files:///run/identity")
        ours = SpiffeId("cluster.local", "/ns/default/sa/reviews")
        mesh.identity = SimpleNamespace(material=SimpleNamespace(id=ours))  # type: ignore[assignment]
        loaded = load([Source("the benchmark", documents.encode())])
        assert not loaded.problems, loaded.problems
        inbound = inbound_of(Snapshot((), loaded.resources), "default", "reviews", {}, InboundState())
    mesh.plan = Plan("1", {}, (), {}, inbound=inbound)
    return ASGIMiddleware(app, mesh)


def _scope(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8080),
        "client": ("192.0.2.7", 50000),
        "scheme": "https",
        "method": "GET",
        "root_path": "",
        "path": "/reviews/42",
        "raw_path": b"/reviews/42",
        "query_string": b"",
        "headers": headers,
        "state": {},
    }


async def _check(subjects: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> None:
    """A request that is refused would be a cheap one."""
    for name, one in subjects.items():
        sent: list[Any] = []

        async def note(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        await one(_scope(headers), Connection().receive, note)
        assert sent[0]["status"] == 200, (name, sent)


def _measure(subject: Any, headers: list[tuple[bytes, bytes]]) -> float:
    """Microseconds a request."""

    async def rounds() -> float:
        connection = Connection()
        gc.disable()
        try:
            began = time.thread_time()
            for _ in range(REQUESTS):
                await subject(_scope(headers), connection.receive, send)
                await asyncio.sleep(0)  # a server comes back to its loop, too
            return (time.thread_time() - began) / REQUESTS * 1e6
        finally:
            gc.enable()

    return asyncio.run(rounds())
