"""The mesh stands before the server's signal handlers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from meshlib.inbound import draining
from meshlib.inbound.draining import Draining
from tests.support import eventually

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGURG)


class Presence:
    """Says that it is registered, and leaves when it is let go."""

    def __init__(self, *, registered: bool = True) -> None:
        self.registered = registered
        self.drain_wait: float | None = None
        self.asked = threading.Event()
        self.may_leave = threading.Event()

    def leave(self) -> None:
        self.asked.set()
        self.may_leave.wait(5.0)


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGURG, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The signals that reached the server."""
    monkeypatch.setattr(draining, "DRAIN_DELAY", 0.0)
    got: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: got.append(number))
    return got


def install(presence: Any) -> Draining:
    installed = Draining(presence)
    installed.install()
    return installed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_server_when_the_service_has_left_the_registry(number: int, server: list[int]) -> None:
    presence = Presence()
    install(presence)
    signal.raise_signal(number)
    eventually(presence.asked.is_set)
    assert server == []
    presence.may_leave.set()
    eventually(lambda: server == [number])


def test_a_second_signal_goes_straight_through_and_the_first_is_not_repeated(server: list[int]) -> None:
    presence = Presence()
    install(presence)
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    assert server == [signal.SIGINT]
    presence.may_leave.set()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "meshlib-drain"])
    assert server == [signal.SIGINT]


def test_a_supervisors_sigterm_after_ctrl_c_leaves_the_service_its_time(server: list[int]) -> None:
    presence = Presence()
    install(presence)
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    assert server == []
    presence.may_leave.set()
    eventually(lambda: sorted(server) == sorted([signal.SIGINT, signal.SIGTERM]))


def test_a_signal_to_a_service_that_is_not_registered_goes_straight_through(server: list[int]) -> None:
    presence = Presence(registered=False)
    install(presence)
    signal.raise_signal(signal.SIGTERM)
    assert server == [signal.SIGTERM]
    assert not presence.asked.is_set()


def test_a_forked_child_keeps_the_servers_handling_to_itself(
    server: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    presence = Presence()
    install(presence)
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    signal.raise_signal(signal.SIGTERM)
    assert server == [signal.SIGTERM]
    assert not presence.asked.is_set()


def test_the_servers_handlers_are_put_back(server: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    installed = install(Presence())
    assert signal.getsignal(signal.SIGTERM) != before
    installed.restore()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_handler_that_took_our_place_is_left_in_it(server: list[int]) -> None:
    installed = install(Presence())
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    installed.restore()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    install(Presence())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_a_handler_that_a_loop_has_been_given_is_left_to_the_loop() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
        before = signal.getsignal(signal.SIGTERM)
        install(Presence())
        assert signal.getsignal(signal.SIGTERM) is before
        loop.remove_signal_handler(signal.SIGTERM)

    asyncio.run(run())


def test_on_another_thread_no_handler_is_touched(server: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=install, args=(Presence(),))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before


def test_another_thread_can_have_the_main_thread_install(server: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    install_now = Draining(Presence()).install_later()  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGTERM) == before
    thread = threading.Thread(target=install_now)
    thread.start()
    thread.join()
    eventually(lambda: signal.getsignal(signal.SIGTERM) != before)
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL


def test_a_signal_that_somebody_uses_is_not_borrowed(server: list[int]) -> None:
    got: list[int] = []
    signal.signal(signal.SIGURG, lambda number, _: got.append(number))
    before = signal.getsignal(signal.SIGURG)
    Draining(Presence()).install_later()()  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGURG) == before
    assert got == []


def test_the_policys_drain_wait_goes_before_the_default(server: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(draining, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))
    presence = Presence()
    presence.may_leave.set()
    presence.drain_wait = 30.0
    install(presence)
    signal.raise_signal(signal.SIGTERM)
    eventually(lambda: server)
    (seconds,) = slept
    assert 29.0 < seconds <= 30.0
