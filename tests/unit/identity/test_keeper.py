"""The identity in force: who follows it, what refuses it, and what is said when it grows old."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from meshlib.errors import IdentityError
from meshlib.identity import keeper
from meshlib.identity.keeper import Commit, Identity
from meshlib.identity.material import Material
from meshlib.identity.spiffe import parse
from tests.support import eventually_async


def material(name: str, age: float = 0.0, left: float = 3600.0) -> Material:
    now = time.time()
    return Material(parse(f"spiffe://example.org/{name}"), b"", b"", b"", now - age, now + left)


class Scripted:
    """A source that says what the test puts into it; an exception is raised."""

    url = "scripted:"

    def __init__(self) -> None:
        self.news: asyncio.Queue[Material | IdentityError | BaseException] = asyncio.Queue()
        self.opened = self.closed = 0

    async def watch(self) -> AsyncGenerator[Material | IdentityError, None]:
        self.opened += 1
        while True:
            news = await self.news.get()
            if isinstance(news, Material | IdentityError):
                yield news
            else:
                raise news

    async def aclose(self) -> None:
        self.closed += 1


def follow(test: Callable[[Identity, Scripted], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "RESTART_WAIT", 0.0)
    monkeypatch.setattr(keeper, "AGE_INTERVAL", 0.0)

    async def run() -> None:
        source = Scripted()
        identity = Identity(lambda: source, source.url)
        chore = asyncio.create_task(identity.run())
        try:
            await test(identity, source)
        finally:
            chore.cancel()
            await asyncio.wait([chore])
        assert source.closed == source.opened

    asyncio.run(run())


def test_followers_get_what_is_in_force_and_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def prepare(new: Material) -> Commit:
        seen.append(f"prepare {new.id.path}")
        return lambda: seen.append(f"commit {new.id.path}")

    async def test(identity: Identity, source: Scripted) -> None:
        source.news.put_nowait(material("one"))
        await eventually_async(identity.settled.is_set)
        identity.follow(prepare)
        source.news.put_nowait(material("two"))
        await eventually_async(lambda: len(seen) == 4)
        assert seen == ["prepare /one", "commit /one", "prepare /two", "commit /two"]

    follow(test, monkeypatch)


def test_what_one_follower_refuses_no_other_puts_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    committed: list[str] = []

    def willing(new: Material) -> Commit:
        return lambda: committed.append(new.id.path)

    def choosy(new: Material) -> Commit:
        if new.id.path == "/bad":
            raise ValueError("not this one")
        return lambda: None

    async def test(identity: Identity, source: Scripted) -> None:
        identity.follow(willing)
        identity.follow(choosy)
        source.news.put_nowait(good := material("good"))
        source.news.put_nowait(material("bad"))
        await eventually_async(lambda: identity.error)
        assert "spiffe://example.org/bad can't be used: not this one" in str(identity.error)
        assert identity.material is good
        assert committed == ["/good"]

    follow(test, monkeypatch)


def test_an_error_stays_until_there_is_material_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(identity: Identity, source: Scripted) -> None:
        source.news.put_nowait(IdentityError("scripted:", "is away"))
        await eventually_async(identity.settled.is_set)
        assert identity.trouble(time.time()) == "scripted:: is away"
        assert identity.error_since is not None
        source.news.put_nowait(material("one"))
        await eventually_async(lambda: identity.material)
        assert not any((identity.error, identity.error_since))
        assert identity.trouble(time.time()) == ""

    follow(test, monkeypatch)


def test_a_source_that_fails_in_an_unforeseen_way_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(identity: Identity, source: Scripted) -> None:
        source.news.put_nowait(RuntimeError("surprise"))
        await eventually_async(lambda: identity.error)
        assert "surprise" in str(identity.error)
        source.news.put_nowait(material("one"))
        await eventually_async(lambda: identity.material)
        assert source.opened == 2

    follow(test, monkeypatch)


def test_a_source_that_cannot_be_opened_is_an_error_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "RESTART_WAIT", 0.0)
    source = Scripted()
    tries = 0

    def make() -> Scripted:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ImportError("no such library")
        return source

    async def run() -> None:
        identity = Identity(make, "scripted:")
        chore = asyncio.create_task(identity.run())
        await eventually_async(lambda: identity.error)
        assert identity.settled.is_set(), "nobody waits for ever"
        source.news.put_nowait(material("one"))
        await eventually_async(lambda: identity.material)
        chore.cancel()
        await asyncio.wait([chore])

    asyncio.run(run())


def test_one_that_is_not_renewed_is_said_to_be_overdue_once_and_expired_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "meshlib.identity")
    now = time.time()
    monkeypatch.setattr(keeper, "time", clock := Clock(now))

    def ages() -> list[tuple[int, str]]:
        return [
            (each.levelno, each.getMessage()) for each in caplog.records if "scripted:: spiffe" in each.getMessage()
        ]

    async def turns() -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    async def test(identity: Identity, source: Scripted) -> None:
        source.news.put_nowait(made := material("web", left=1000.0))
        await eventually_async(lambda: identity.material)
        await turns()
        assert ages() == []
        clock.now = made.not_after - 40
        assert "expires in 40 s" in identity.trouble(clock.now)
        await turns()
        clock.now = made.not_after + 1
        await turns()
        assert [level for level, _ in ages()] == [logging.WARNING, logging.ERROR]
        assert "hasn't been renewed" in ages()[0][1]
        assert "peers refuse it" in ages()[1][1]
        assert identity.material is made, "there is none better"

    follow(test, monkeypatch)


def test_while_the_source_is_away_it_is_said_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(identity: Identity, source: Scripted) -> None:
        source.news.put_nowait(material("web", age=2700.0, left=900.0))
        await eventually_async(lambda: identity.material)
        assert identity.trouble(time.time()) == ""
        source.news.put_nowait(IdentityError("scripted:", "is away"))
        await eventually_async(lambda: identity.error)
        said = identity.trouble(time.time())
        assert "expires in 1" in said
        assert said.endswith("; scripted:: is away")

    follow(test, monkeypatch)


def test_a_forked_child_waits_for_news_of_its_own_and_has_the_old_material_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(identity: Identity, source: Scripted) -> None:
        before, now = material("a"), material("b")
        source.news.put_nowait(before)
        await eventually_async(identity.settled.is_set)
        identity.after_fork()
        assert identity.material == before
        assert not identity.settled.is_set()
        source.news.put_nowait(now)
        await eventually_async(identity.settled.is_set)
        assert identity.material == now

    follow(test, monkeypatch)


class Clock:
    """Stands in for the module `time`."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now
