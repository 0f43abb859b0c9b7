"""Keeping the keys of issuers: when they are fetched, how seldom, and what serves meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from meshlib.identity import keys as module
from meshlib.identity.keyfetch import KeysUnreachable, open_client
from meshlib.identity.keys import LEAST_INTERVAL, IssuerKeysKeeper
from meshlib.state.tokens import IssuerKeys, KeySource, TokenState
from tests.support import eventually_async
from tests.support.tokens import ISSUER, Issuer

SOURCE = KeySource(ISSUER, "https://issuer.example/keys", 5.0)
OTHER = KeySource("https://other.example", "", 5.0)
TWO = Issuer("ES256", "one", "two")


class Client:
    """Stands where httpx's would; nothing is sent."""

    async def aclose(self) -> None:
        """Nothing to close."""


class Place:
    """Where keys are: it answers as the test says, and counts.

    Attributes:
        says: the key set, or why there is none.
        held: set to have fetches hang.
    """

    def __init__(self) -> None:
        self.says: bytes | Exception = json.dumps(TWO.key_set("one")).encode()
        self.asked: list[KeySource] = []
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self, _client: Any, source: KeySource) -> bytes:
        self.asked.append(source)
        await self.open.wait()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class Kept:
    """A keeper under test, with a clock that the test moves."""

    def __init__(self, *sources: KeySource, eager: bool = True) -> None:
        self.now = 1000.0
        self.place = Place()
        self.state = TokenState()
        self.state.want(sources or (SOURCE,))
        self.keeper = IssuerKeysKeeper(
            self.state,
            eager=eager,
            fetch=self.place.fetch,
            open_client=Client,  # type: ignore[arg-type]  # all that is used of it
            clock=lambda: self.now,
            chance=lambda: 0.0,
        )

    @property
    def keys(self) -> IssuerKeys:
        return self.state.wanted[0]

    async def first(self) -> None:
        await eventually_async(lambda: self.keys.ring is not None)
        await eventually_async(lambda: self.keeper._rounds[SOURCE].under_way is None)


def keep(test: Callable[[Kept], Awaitable[None]], *sources: KeySource, eager: bool = True) -> None:
    async def run() -> None:
        kept = Kept(*sources, eager=eager)
        chore = asyncio.create_task(kept.keeper.run())
        try:
            await test(kept)
        finally:
            chore.cancel()
            await asyncio.wait([chore])

    asyncio.run(run())


def test_a_service_has_keys_before_anybody_asks() -> None:
    async def test(kept: Kept) -> None:
        await kept.first()
        assert kept.place.asked == [SOURCE]
        assert kept.keys.error == ""

    keep(test)


def test_a_pure_client_asks_no_issuer_until_a_token_comes() -> None:
    async def test(kept: Kept) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert kept.place.asked == []
        assert await kept.keeper.fetch_soon(SOURCE).sleep(5)
        assert kept.keys.ring is not None
        # The first ones don't count as fetched for a made-up name: the next token may name a key that came since.
        await eventually_async(lambda: kept.keeper._rounds[SOURCE].under_way is None)
        assert await kept.keeper.fetch_soon(SOURCE).sleep(5)
        assert len(kept.place.asked) == 2

    keep(test, eager=False)


def test_keys_are_refreshed_and_the_same_ones_stay_the_same_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH", 0.0)

    async def test(kept: Kept) -> None:
        await kept.first()
        ring, asked = kept.keys.ring, len(kept.place.asked)
        await eventually_async(lambda: len(kept.place.asked) > asked + 2)
        assert kept.keys.ring is ring
        kept.place.says = json.dumps(TWO.key_set()).encode()
        await eventually_async(lambda: kept.keys.ring is not ring)

    keep(test)


@pytest.mark.parametrize(
    "trouble",
    [KeysUnreachable("https://issuer.example/keys answered 500"), RuntimeError("nobody foresaw this")],
)
def test_while_an_issuer_is_away_its_keys_serve_on(trouble: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH", 0.0)
    monkeypatch.setattr(module, "FIRST_RETRY", 0.0)

    async def test(kept: Kept) -> None:
        await kept.first()
        ring, good = kept.keys.ring, kept.place.says
        kept.place.says = trouble
        await eventually_async(lambda: kept.keys.error)
        assert str(trouble) in kept.keys.error
        assert kept.keys.ring is ring
        kept.place.says = good
        await eventually_async(lambda: not kept.keys.error)
        assert kept.keys.ring is ring

    keep(test)


@pytest.mark.parametrize(("variable", "value"), [("SSL_CERT_FILE", "/missing/roots.pem"), ("ALL_PROXY", "gopher://x")])
def test_an_environment_nothing_can_be_fetched_with_is_said_and_tried_again(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY", 0.0)
    monkeypatch.setenv(variable, value)

    async def test(kept: Kept) -> None:
        kept.keeper._open_client = open_client
        await eventually_async(lambda: kept.keys.error)
        assert "SSL_CERT_FILE, SSL_CERT_DIR and HTTPS_PROXY" in kept.keys.error
        kept.keeper._open_client = Client  # type: ignore[assignment]  # the file is there now
        await kept.first()

    keep(test)


@pytest.mark.parametrize("text", [b"", b"<html>", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AAAA"}]}'])
def test_rubbish_takes_no_keys_away(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH", 0.0)

    async def test(kept: Kept) -> None:
        await kept.first()
        ring = kept.keys.ring
        kept.place.says = text
        await eventually_async(lambda: kept.keys.error)
        assert kept.keys.ring is ring

    keep(test)


def test_a_failed_fetch_is_tried_again_ever_more_seldom() -> None:
    async def test(kept: Kept) -> None:
        keys = IssuerKeys(SOURCE, error="away")
        waits = kept.keeper._waits(keys)
        assert [next(waits) for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
        keys.error = ""
        assert next(waits) == 300.0
        keys.error = "away again"
        assert next(waits) == 1.0

    keep(test)


def test_an_unknown_key_has_them_fetched_once_for_all_who_ask() -> None:
    async def test(kept: Kept) -> None:
        await kept.first()
        kept.now += LEAST_INTERVAL
        kept.place.says = json.dumps(TWO.key_set()).encode()
        kept.place.open.clear()
        asked = len(kept.place.asked)
        flags = [kept.keeper.fetch_soon(SOURCE) for _ in range(100)]
        await eventually_async(lambda: len(kept.place.asked) > asked)
        assert not any(flag.is_set() for flag in flags)
        kept.place.open.set()
        assert all([await flag.sleep(5) for flag in flags])
        assert len(kept.place.asked) == asked + 1
        assert kept.keys.ring is not None
        assert len(kept.keys.ring) == 2

    keep(test)


def test_made_up_keys_do_not_have_an_issuer_asked_all_the_time() -> None:
    """However many tokens come: no more than once in ten seconds, and nobody waits in between."""

    async def test(kept: Kept) -> None:
        await kept.first()
        asked = len(kept.place.asked)
        for _ in range(100):  # 10 seconds and a little
            kept.now += 0.101
            for _ in range(10):
                assert await kept.keeper.fetch_soon(SOURCE).sleep(5)
        assert len(kept.place.asked) == asked + 1

    keep(test)


def test_while_an_issuer_fails_nobody_waits_for_it() -> None:
    async def test(kept: Kept) -> None:
        kept.place.says = KeysUnreachable("gone")
        await eventually_async(lambda: kept.keys.error)
        await eventually_async(lambda: kept.keeper._rounds[SOURCE].under_way is None)
        assert kept.keeper.fetch_soon(SOURCE).is_set()
        assert len(kept.place.asked) == 1

    keep(test)


def test_any_thread_may_ask_and_wait() -> None:
    async def test(kept: Kept) -> None:
        got: list[bool] = []
        thread = threading.Thread(target=lambda: got.append(kept.keeper.fetch_soon(SOURCE).wait(5)))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert got == [True]
        assert kept.keys.ring is not None

    keep(test, eager=False)


def test_one_that_hangs_is_not_in_the_way_of_others() -> None:
    async def test(kept: Kept) -> None:
        kept.place.open.clear()
        await eventually_async(lambda: set(kept.place.asked) == {SOURCE, OTHER})

    keep(test, SOURCE, OTHER)


def test_another_plan_may_want_other_keys() -> None:
    async def test(kept: Kept) -> None:
        await kept.first()
        kept.place.open.clear()
        kept.state.want([OTHER])
        kept.keeper.look()
        await eventually_async(lambda: OTHER in kept.place.asked)
        waiting = kept.keeper.fetch_soon(OTHER)
        kept.state.want([SOURCE])
        kept.keeper.look()
        assert await waiting.sleep(5)  # nobody fetches for it any more, and nobody has to wait the time out
        await eventually_async(lambda: kept.keeper._rounds.keys() == {SOURCE})
        assert kept.keys.ring is not None  # of before

    keep(test)


def test_who_waits_when_the_mesh_is_closed_waits_no_longer() -> None:
    async def run() -> None:
        kept = Kept()
        kept.place.open.clear()
        chore = asyncio.create_task(kept.keeper.run())
        await eventually_async(lambda: kept.place.asked)
        waiting = kept.keeper.fetch_soon(SOURCE)
        chore.cancel()
        await asyncio.wait([chore])
        assert waiting.is_set()

    asyncio.run(run())


def test_it_can_be_begun_again_on_another_loop() -> None:
    kept: Kept

    async def make() -> Kept:
        return Kept()

    kept = asyncio.run(make())
    for _ in range(2):

        async def run() -> None:
            kept.place.open = asyncio.Event()
            kept.place.open.set()
            chore = asyncio.create_task(kept.keeper.run())
            asked = len(kept.place.asked)
            await eventually_async(lambda: len(kept.place.asked) > asked)
            chore.cancel()
            await asyncio.wait([chore])

        asyncio.run(run())


def test_keys_nobody_names_are_kept_for_a_while_and_not_for_ever() -> None:
    state = TokenState()
    first = state.want([SOURCE])[SOURCE]
    state.want([])
    assert state.want([SOURCE])[SOURCE] is first
    for number in range(200):
        state.want([KeySource(f"https://{number}.example", "", 5.0)])
    assert state.want([SOURCE])[SOURCE] is not first


def test_that_no_token_can_be_verified_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    keeper = IssuerKeysKeeper(state := TokenState(), eager=True)
    for fault in ("joserfc isn't installed", "joserfc isn't installed", "", "joserfc isn't installed"):
        state.fault = fault
        keeper.look()
    assert caplog.messages == ["joserfc isn't installed"] * 2
    assert keeper.trouble == "joserfc isn't installed"
