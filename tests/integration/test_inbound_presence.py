"""A process finds out where it listens, by looking at its own sockets."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.inbound import presence
from meshlib.inbound.listening import Address, listening
from meshlib.inbound.presence import Presence
from tests.support import eventually

Listen = Callable[..., Address]


class RecordingMesh(Mesh):
    """Notes what it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__("memory:", service="web", **options)
        self.asked: list[Any] = []

    def serve(self, address: str | tuple[str, int] | None = None) -> None:
        self.asked.append(address)

    def withdraw(self) -> None:
        self.asked.append("withdraw")


@pytest.fixture
def listen() -> Iterator[Listen]:
    opened: list[socket.socket] = []

    def listen(family: int = socket.AF_INET, host: str = "127.0.0.1") -> Address:
        sock = socket.socket(family)
        opened.append(sock)
        sock.bind((host, 0))
        sock.listen()
        bound: Address = sock.getsockname()[:2]
        return bound

    yield listen
    for sock in opened:
        sock.close()


@pytest.fixture
def mesh(tmp_path: Path) -> RecordingMesh:
    return RecordingMesh(state_dir=tmp_path)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_EVERY", 0.005)
    monkeypatch.setattr(presence, "PATIENCE", 0.1)
    monkeypatch.setattr(presence, "WATCH_FOR", 0.3)


def watched() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name == "meshlib-presence"]


def test_listening_sockets_are_seen_and_no_others(listen: Listen, tmp_path: Path) -> None:
    bound = listen()
    with (
        socket.socket() as not_listening,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as unix,
        socket.create_connection(bound) as connected,
    ):
        not_listening.bind(("127.0.0.1", 0))
        datagrams.bind(("127.0.0.1", 0))
        unix.bind(os.path.relpath(tmp_path / "socket"))
        unix.listen()
        seen = listening()
        assert bound in seen
        others = {sock.getsockname() for sock in (not_listening, datagrams, connected)}
        assert not seen & others


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
def test_a_listening_ipv6_socket_is_seen(listen: Listen) -> None:
    try:
        bound = listen(socket.AF_INET6, "::1")
    except OSError:
        pytest.skip("there is no IPv6 loopback here")
    assert bound in listening()


def test_the_socket_that_appears_is_registered(listen: Listen, mesh: RecordingMesh) -> None:
    exporter = listen()
    Presence(mesh).watch([exporter], listening())
    server = listen()
    eventually(lambda: mesh.asked == [server])
    eventually(watched)


def test_a_socket_that_was_inherited_is_registered_when_no_other_appears(listen: Listen, mesh: RecordingMesh) -> None:
    inherited = listen()
    exporter = listen()
    Presence(mesh).watch([inherited], {inherited, exporter})
    eventually(lambda: mesh.asked == [inherited])
    eventually(watched)


def test_a_process_that_listens_on_several_ports_is_asked_for_its_address(
    listen: Listen, mesh: RecordingMesh, caplog: pytest.LogCaptureFixture
) -> None:
    ports = [listen()[1], listen()[1]]
    Presence(mesh).watch(listening(), listening())
    eventually(watched)
    assert mesh.asked == []
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert "MESHLIB_ADDRESS" in record.getMessage()
    assert all(str(port) in record.getMessage() for port in ports)


def test_a_process_that_never_listens_says_so(mesh: RecordingMesh, caplog: pytest.LogCaptureFixture) -> None:
    Presence(mesh).watch((), listening())
    eventually(watched)
    assert mesh.asked == []
    assert "MESHLIB_ADDRESS" in caplog.text


def test_the_address_that_is_set_needs_no_socket_of_ours(tmp_path: Path) -> None:
    mesh = RecordingMesh(state_dir=tmp_path, address="10.1.2.3:80")
    Presence(mesh).watch((), listening())
    eventually(lambda: mesh.asked == [("10.1.2.3", 80)])
    eventually(watched)


def test_who_leaves_while_waiting_is_never_registered(listen: Listen, mesh: RecordingMesh) -> None:
    waiting = Presence(mesh)
    waiting.watch((), listening())
    waiting.leave()
    listen()
    eventually(watched)
    waiting.register(("127.0.0.1", 80))
    assert mesh.asked == []


def test_who_is_registered_is_withdrawn(mesh: RecordingMesh) -> None:
    there = Presence(mesh)
    there.register(("127.0.0.1", 80))
    there.leave()
    assert mesh.asked == [("127.0.0.1", 80), "withdraw"]


def test_an_address_the_registry_would_refuse_is_an_error_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mesh = Mesh("memory:", service="web", state_dir=tmp_path)
    there = Presence(mesh)
    there.register(("not a host", 80))
    mesh.close()
    assert not there.registered
    assert "web isn't registered at not a host:80" in caplog.text
