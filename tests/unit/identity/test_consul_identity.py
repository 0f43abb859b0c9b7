"""Leaf and roots from Consul's CA, each by its own query, together or not at all."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from meshlib.errors import RegistryError
from meshlib.identity import consul
from meshlib.identity.certificates import split
from meshlib.identity.consul import ASK_AGAIN, ConsulIdentity, ask_again
from meshlib.identity.material import Material
from meshlib.registries.consul import query
from meshlib.registries.consul.client import Answer
from tests.support import eventually_async
from tests.support.authority import Authority, Issued
from tests.support.watched import Watch, error, material

DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
WEB = f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web"
LEAF, ROOTS = "/v1/agent/connect/ca/leaf/web", "/v1/agent/connect/ca/roots"
OLD, NEW = Authority("old"), Authority("new")


class Agent:
    """Consul's agent as far as its CA goes: answers are held back until there is news."""

    url = "consul://127.0.0.1:8500"

    class settings:  # noqa: N801 - stands for an attribute
        stale = False

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None]] = []
        self.closed = False
        self._state: dict[str, tuple[int, bytes | RegistryError]] = {}
        self._news = asyncio.Condition()

    async def get(self, path: str, params: Sequence[tuple[str, str]] = (), **more: Any) -> Answer:
        index = more.get("index")
        self.asked.append((path, index))
        async with self._news:
            await self._news.wait_for(lambda: path in self._state and self._state[path][0] != index)
            number, said = self._state[path]
        if isinstance(said, RegistryError):
            raise said
        return Answer(said, number, {})

    def error(self, problem: str, way_out: str = "") -> RegistryError:
        return RegistryError(self.url, problem, way_out)

    async def aclose(self) -> None:
        self.closed = True

    async def say(self, path: str, said: bytes | RegistryError) -> None:
        async with self._news:
            self._state[path] = (self._state.get(path, (6, b""))[0] + 1, said)
            self._news.notify_all()

    async def leaf(self, issued: Issued, uri: str = WEB) -> None:
        await self.say(LEAF, leaf(issued, uri))

    async def roots(self, *authorities: Authority, domain: str = DOMAIN) -> None:
        roots = [
            {"ID": str(number), "RootCert": authority.roots.decode(), "IntermediateCerts": None, "Active": not number}
            for number, authority in enumerate(authorities)
        ]
        await self.say(ROOTS, json.dumps({"ActiveRootID": "0", "TrustDomain": domain, "Roots": roots}).encode())


def leaf(issued: Issued, uri: str = WEB) -> bytes:
    dates = {}
    for name in ("ValidAfter", "ValidBefore"):
        hours = 1 if name == "ValidBefore" else 0
        dates[name] = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps(
        {
            "SerialNumber": "08",
            "CertPEM": issued.certificates.decode(),
            "PrivateKeyPEM": issued.key.decode(),
            "Service": "web",
            "ServiceURI": uri,
            **dates,
        }
    ).encode()


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "FIRST_RETRY", 0.0)
    monkeypatch.setattr(query, "RATE", 1e9)
    monkeypatch.setattr(consul, "FIT_WAIT", 0.02)


def watch(test: Callable[[Agent, Watch], Awaitable[None]]) -> None:
    async def run() -> None:
        agent = Agent()
        source = ConsulIdentity(agent, "web")  # type: ignore[arg-type]
        watching = source.watch()
        try:
            async with asyncio.timeout(10):
                await test(agent, watching)
        finally:
            await watching.aclose()
            await source.aclose()
        assert agent.closed

    asyncio.run(run())


def test_material_is_there_when_both_halves_are() -> None:
    async def test(agent: Agent, watching: Watch) -> None:
        issued = OLD.issue(WEB)
        await agent.leaf(issued)
        coming = asyncio.ensure_future(anext(watching))
        await eventually_async(lambda: (LEAF, 7) in agent.asked)
        assert not coming.done()
        await agent.roots(OLD)
        made = await coming
        assert isinstance(made, Material)
        assert (str(made.id), made.certificates, made.roots) == (WEB, issued.certificates, OLD.roots)

    watch(test)


def test_a_renewed_leaf_is_taken() -> None:
    async def test(agent: Agent, watching: Watch) -> None:
        await agent.roots(OLD)
        await agent.leaf(OLD.issue(WEB))
        await material(watching)
        renewed = OLD.issue(WEB)
        await agent.leaf(renewed)
        assert (await material(watching)).certificates == renewed.certificates

    watch(test)


def test_while_roots_change_both_are_trusted_and_then_only_the_new() -> None:
    async def test(agent: Agent, watching: Watch) -> None:
        await agent.roots(OLD)
        await agent.leaf(OLD.issue(WEB))
        await material(watching)
        await agent.roots(NEW, OLD)
        assert set(split((await material(watching)).roots)) == {OLD.roots, NEW.roots}
        issued = NEW.issue(WEB)
        crossed = Issued(issued.certificates + NEW.crossed_by(OLD), issued.key)
        await agent.leaf(crossed)
        assert (await material(watching)).certificates == crossed.certificates
        await agent.roots(NEW)
        assert (await material(watching)).roots == NEW.roots

    watch(test)


def test_a_leaf_that_comes_before_its_root_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul, "FIT_WAIT", 60.0)

    async def test(agent: Agent, watching: Watch) -> None:
        await agent.roots(OLD)
        await agent.leaf(OLD.issue(WEB))
        await material(watching)
        issued = NEW.issue(WEB)
        await agent.leaf(issued)
        coming = asyncio.ensure_future(anext(watching))
        await eventually_async(lambda: (LEAF, 8) in agent.asked)
        await agent.roots(NEW, OLD)
        made = await coming
        assert isinstance(made, Material), "nothing was said of the moment in between"
        assert made.certificates == issued.certificates

    watch(test)


def test_halves_that_stay_apart_are_an_error_until_they_fit() -> None:
    async def test(agent: Agent, watching: Watch) -> None:
        await agent.roots(NEW)
        await agent.leaf(OLD.issue(WEB))
        assert "a peer would refuse the certificate" in await error(watching)
        await agent.roots(OLD)
        await material(watching)

    watch(test)


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("spiffe://elsewhere.consul/ns/default/dc/dc1/svc/web", id="another trust domain"),
        pytest.param(f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web2", id="another service"),
        pytest.param(f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/other-web", id="an end that is alike"),
    ],
)
def test_a_leaf_for_anything_else_is_refused(uri: str) -> None:
    async def test(agent: Agent, watching: Watch) -> None:
        await agent.roots(OLD)
        await agent.leaf(OLD.issue(uri), uri)
        assert f"the leaf is for {uri}; expected spiffe://{DOMAIN}/ns/default/dc/…/svc/web" in await error(watching)

    watch(test)


def test_an_outage_is_told_once_and_its_end_too() -> None:
    async def test(agent: Agent, watching: Watch) -> None:
        await agent.roots(OLD)
        await agent.leaf(OLD.issue(WEB))
        before = await material(watching)
        away = RegistryError(agent.url, "can't be reached", "is it running?")
        await agent.say(LEAF, away)
        assert await error(watching) == "consul://127.0.0.1:8500: can't be reached (is it running?)"
        coming = asyncio.ensure_future(anext(watching))
        await agent.say(ROOTS, away)
        await eventually_async(lambda: agent.asked.count((ROOTS, None)) > 2)
        assert not coming.done(), "the same is said once"
        await agent.roots(OLD)
        await eventually_async(lambda: agent.asked[-1][0] == LEAF)
        assert not coming.done(), "one half is still away"
        await agent.say(LEAF, leaf(Issued(before.certificates, before.key)))
        assert isinstance(await coming, Material)

    watch(test)


@pytest.mark.parametrize("data", [b"", b"{", b"<html>", b"[]", b"null", b'{"CertPEM": 1}', b"{}"])
def test_rubbish_is_an_error_and_the_next_answer_is_taken(data: bytes) -> None:
    async def test(agent: Agent, watching: Watch) -> None:
        await agent.roots(OLD)
        await agent.say(LEAF, data)
        assert "can't be read" in await error(watching)
        await agent.leaf(OLD.issue(WEB))
        await material(watching)

    watch(test)


def test_no_part_of_an_answer_that_cannot_be_read_is_shown() -> None:
    async def test(agent: Agent, watching: Watch) -> None:
        await agent.roots(OLD)
        await agent.say(LEAF, b'{"PrivateKeyPEM": "secret", "CertPEM": 1}')
        said = await error(watching)
        assert "can't be read" in said
        assert "secret" not in said

    watch(test)


def test_a_consul_without_a_ca_says_what_to_set() -> None:
    async def test(agent: Agent, watching: Watch) -> None:
        problem = "was answered 500: Connect must be enabled in order to use this endpoint"
        await agent.say(ROOTS, RegistryError(agent.url, problem))
        assert "connect { enabled = true }" in await error(watching)

    watch(test)


def test_a_leaf_that_nothing_renews_is_asked_for_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul, "ask_again", lambda *_: 0.01)

    async def test(agent: Agent, watching: Watch) -> None:
        await agent.roots(OLD)
        await agent.leaf(OLD.issue(WEB))
        await material(watching)
        coming = asyncio.ensure_future(anext(watching))
        await eventually_async(lambda: agent.asked.count((LEAF, None)) > 2)
        assert agent.asked.count((ROOTS, None)) == 1
        await agent.leaf(OLD.issue(WEB))
        assert isinstance(await coming, Material)

    watch(test)


def test_it_is_asked_for_again_in_good_time_and_not_by_everybody_at_once() -> None:
    first, last = ask_again(0, 3600, 0, 0.0), ask_again(0, 3600, 0, 1.0)
    assert (first, last) == (3600 * ASK_AGAIN[0], 3600 * ASK_AGAIN[1])
    assert ask_again(0, 3600, 3560, 0.0) < 10, "sooner and sooner"
    assert ask_again(0, 3600, 4000, 0.0) > 3, "and not in a busy loop"


def test_the_key_does_not_show_in_a_repr() -> None:
    import msgspec

    decoded = msgspec.json.decode(leaf(OLD.issue(WEB)), type=consul._Leaf)
    assert repr(decoded) == f"<leaf of {WEB}>"
    assert ssl.PEM_cert_to_DER_cert(decoded.certificates)
