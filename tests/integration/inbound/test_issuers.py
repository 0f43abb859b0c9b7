"""Keys of issuers over real sockets: fetched, rotated under load, and every way in which an issuer may fail."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from meshlib import ASGIMiddleware, Mesh, WSGIMiddleware
from meshlib.identity import keys
from meshlib.identity.keyfetch import KeysUnreachable, fetch_key_set, open_client
from meshlib.policy.keyring import MAX_KEY_SET
from meshlib.registries.memory import MemoryRegistry
from meshlib.resources import Source, load
from meshlib.state.tokens import KeySource
from tests.support import eventually
from tests.support.authority import Authority
from tests.support.issuing import IssuingServer, body, closing, dripping, endless, status
from tests.support.tokens import Issuer

SIGNER = Issuer("ES256", "one", "two")
KEYS = json.dumps(SIGNER.key_set("one")).encode()


@pytest.fixture
def server() -> Iterator[IssuingServer]:
    running = IssuingServer()
    yield running
    running.close()


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IssuingServer]:
    """One with TLS, which SSL_CERT_FILE says is to be trusted."""
    authority = Authority()
    (tmp_path / "roots.pem").write_bytes(authority.roots)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))
    running = IssuingServer(authority)
    yield running
    running.close()


def fetched(source: KeySource) -> bytes:
    async def fetch() -> bytes:
        async with open_client() as client:
            return await fetch_key_set(client, source)

    return asyncio.run(fetch())


def at(server: IssuingServer, path: str = "/keys", timeout: float = 5.0) -> KeySource:
    return KeySource(server.url, server.url + path if path else "", timeout)


def test_keys_come_over_tls(secure: IssuingServer) -> None:
    secure.put("/keys", KEYS)
    assert fetched(at(secure)) == KEYS


def test_keys_come_by_discovery(secure: IssuingServer) -> None:
    secure.put("/keys", KEYS)
    secure.discover()
    assert fetched(at(secure, "")) == KEYS
    assert secure.asked == ["/.well-known/openid-configuration", "/keys"]


def test_an_issuer_that_nobody_vouches_for_is_not_believed() -> None:
    stranger = IssuingServer(Authority())
    try:
        with pytest.raises(KeysUnreachable, match="certificate verify failed"):
            fetched(at(stranger))
    finally:
        stranger.close()
    assert stranger.asked == []


def test_redirects_are_followed(server: IssuingServer) -> None:
    server.put("/keys", status(302, "/b"))
    server.put("/b", status(307, server.url + "/c"))
    server.put("/c", KEYS)
    assert fetched(at(server)) == KEYS


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (status(500), "answered 500"),
        (status(204), "answered 204"),
        (status(304), "answered 304"),
        (status(302, "/keys"), "more than 3 redirects"),
        (status(302, "file:///etc/passwd"), "which isn't https"),
        (status(302, "http://[::1"), "/keys: "),
        (body(b" " * (MAX_KEY_SET + 1)), "more than 1048576 bytes"),
        (endless, "more than 1048576 bytes"),
        (body(gzip.compress(KEYS), content_encoding="gzip"), "answered packed"),
        (closing, "disconnected"),
    ],
)  # fmt: skip
def test_an_issuer_that_fails_says_how(server: IssuingServer, answer: Callable[[Any], None], why: str) -> None:
    server.put("/keys", answer)
    with pytest.raises(KeysUnreachable) as caught:
        fetched(at(server))
    assert why in str(caught.value)
    assert len(server.asked) <= 4


def test_from_https_nothing_leads_to_http(secure: IssuingServer, server: IssuingServer) -> None:
    server.put("/keys", KEYS)
    secure.put("/keys", status(302, server.url + "/keys"))
    secure.discover(jwks_uri=server.url + "/keys")
    for path in ("/keys", ""):
        with pytest.raises(KeysUnreachable, match="which isn't https"):
            fetched(at(secure, path))
    assert server.asked == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"issuer": "https://other.example", "jwks_uri": "x"}, "speaks of the issuer 'https://other.example'"),
        ({"jwks_uri": "https://other.example/keys"}, "speaks of the issuer 'None'"),
        ({"issuer": "here"}, "has no jwks_uri"),
        ({"issuer": "here", "jwks_uri": ["a"]}, "has no jwks_uri"),
        ({"issuer": "here", "jwks_uri": "ftp://a/b"}, "which isn't https"),
        (b"<html>", "no clean JSON"),
        (b"[]", "no JSON object"),
    ],
)
def test_a_discovery_that_leads_nowhere(server: IssuingServer, answer: Any, why: str) -> None:
    if isinstance(answer, dict) and answer.get("issuer") == "here":
        answer = {**answer, "issuer": server.url}
    server.put("/.well-known/openid-configuration", answer)
    with pytest.raises(KeysUnreachable, match=why.replace("[", "\\[")):
        fetched(at(server, ""))
    assert len(server.asked) == 1


def test_a_slow_issuer_is_given_its_time_in_all_and_no_more(server: IssuingServer) -> None:
    server.put("/keys", dripping(KEYS, 0.05))
    began = time.monotonic()
    with pytest.raises(KeysUnreachable, match=r"didn't answer within 0\.4 s"):
        fetched(at(server, timeout=0.4))
    assert time.monotonic() - began < 3


def test_an_issuer_that_is_away(server: IssuingServer) -> None:
    server.close()
    with pytest.raises(KeysUnreachable, match=server.url):
        fetched(at(server))


WHO = {"header": "x-who", "claim": "sub"}


class World:
    """A service that takes an issuer's tokens, with both middlewares before an application that says who asks."""

    def __init__(self, server: IssuingServer, folder: Path, **rule: Any) -> None:
        document = {
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": {"name": "it"},
            "spec": {"jwtRules": [{"issuer": server.url, "outputClaimToHeaders": [WHO], **rule}]},
        }
        loaded = load([Source("the test", json.dumps(document).encode())])
        assert not loaded.problems
        registry = MemoryRegistry()
        asyncio.run(registry.apply(loaded.resources))
        self.issuer = server.url
        self.mesh = Mesh(registry, state_dir=folder)
        self.asgi = ASGIMiddleware(_asgi, self.mesh)
        self.wsgi = WSGIMiddleware(_wsgi, self.mesh)

    def __enter__(self) -> Self:
        self.mesh.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.mesh.close()

    def token(self, kid: str = "one", **said: Any) -> str:
        return SIGNER.token(kid, **{"iss": self.issuer, "exp": time.time() + 600, **said}).decode()

    def ask(self, token: str) -> httpx.Response:
        with httpx.Client(transport=httpx.WSGITransport(self.wsgi), base_url="http://reviews") as client:
            return client.get("/", headers={"authorization": f"Bearer {token}"})

    async def aask(self, token: str, path: str = "/") -> httpx.Response:
        transport = httpx.ASGITransport(self.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://reviews") as client:
            return await client.get(path, headers={"authorization": f"Bearer {token}"} if token else {})


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    said = dict(scope["headers"]).get(b"x-who", b"") + b"?" + scope["query_string"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": said})


def _wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [environ.get("HTTP_X_WHO", "").encode("latin-1") + b"?" + environ.get("QUERY_STRING", "").encode("latin-1")]


def test_the_first_requests_wait_for_the_first_keys(server: IssuingServer, tmp_path: Path) -> None:
    server.put("/keys", dripping(KEYS, 0.0005))
    server.discover()
    with World(server, tmp_path) as world, ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda number: world.ask(world.token(sub=f"u{number}")), range(8)))
        assert [(reply.status_code, reply.text) for reply in replies] == [(200, f"u{number}?") for number in range(8)]
        assert world.mesh.status().keys_error == ""
    assert server.asked.count("/keys") == 1


def test_the_application_sees_no_token_of_the_query(server: IssuingServer, tmp_path: Path) -> None:
    server.put("/keys", KEYS)
    with World(server, tmp_path, jwksUri=server.url + "/keys") as world:
        path = f"/?a=%20b&access_token={world.token()}&c"
        assert asyncio.run(world.aask("", path)).text == "jason?a=%20b&c"
        with httpx.Client(transport=httpx.WSGITransport(world.wsgi), base_url="http://reviews") as client:
            assert client.get(path).text == "jason?a=%20b&c"


def test_keys_rotate_under_load_and_no_good_token_is_refused(server: IssuingServer, tmp_path: Path) -> None:
    """The issuer publishes its new key with the first token it signs by it, not before; nobody looks for 5 minutes."""
    server.put("/keys", KEYS)
    with World(server, tmp_path, jwksUri=server.url + "/keys") as world:

        async def work() -> list[int]:
            kid = "one"
            said: list[int] = []

            async def caller(number: int) -> None:
                nonlocal kid
                for count in range(30):
                    await asyncio.sleep(0)
                    if len(said) >= 60 and kid == "one":
                        server.put("/keys", SIGNER.key_set("two"))
                        kid = "two"
                    reply = await world.aask(world.token(kid, sub=f"{number}.{count}"))
                    said.append(reply.status_code)

            await asyncio.gather(*(caller(number) for number in range(8)))
            return said

        said = asyncio.run(work())
        assert (len(said), set(said)) == (240, {200})
        assert server.asked.count("/keys") == 2
        # What the old key signed is refused from then on: it is gone from the set.
        assert asyncio.run(world.aask(world.token("one"))).status_code == 401


def test_an_issuer_that_goes_away_is_missed_by_nobody(
    server: IssuingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "REFRESH", 0.05)
    server.put("/keys", KEYS)
    with World(server, tmp_path, jwksUri=server.url + "/keys") as world:
        assert world.ask(world.token()).status_code == 200
        server.close()
        eventually(lambda: world.mesh.status().keys_error)
        assert not world.mesh.status().ok
        assert world.ask(world.token(sub="new")).status_code == 200
        began = time.monotonic()
        assert world.ask(world.token("two")).status_code == 401
        assert time.monotonic() - began < 1


def test_without_any_keys_a_token_is_refused_and_the_issuer_is_named(server: IssuingServer, tmp_path: Path) -> None:
    server.put("/keys", status(503))
    with World(server, tmp_path, jwksUri=server.url + "/keys", timeout="1s") as world:
        reply = world.ask(world.token())
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
        assert f"{server.url}: {server.url}/keys answered 503" in world.mesh.status().keys_error
        assert asyncio.run(world.aask("")).status_code == 200


def test_forged_names_of_keys_do_not_reach_the_issuer(server: IssuingServer, tmp_path: Path) -> None:
    server.put("/keys", KEYS)
    with World(server, tmp_path, jwksUri=server.url + "/keys") as world:
        forged = world.token("two")
        with ThreadPoolExecutor(8) as threads:
            replies = list(threads.map(lambda _: world.ask(forged).status_code, range(200)))
        assert set(replies) == {401}
        assert server.asked.count("/keys") <= 2  # at the start, and once for them all
