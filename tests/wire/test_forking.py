"""A forked child shares neither connections nor locks with its parent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.identity.outgoing import PeerContexts
from meshlib.registries.memory import MemoryRegistry
from meshlib.state.endpoint import EndpointState
from meshlib.wire.channels import ChannelSet
from meshlib.wire.tls import Tls
from meshlib.wire.transport import Options
from tests.support import eventually
from tests.wire.server import OK, Peer, Server, answering

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


PLAIN: Any = SimpleNamespace(peers=PeerContexts(None))
"""A mesh that has no identity."""


def in_child(work: Callable[[], bool]) -> bool:
    """What `work` says in a forked child; False when it doesn't end within 10 s."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(10)
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Idle:
    """A channel that does nothing."""

    def close(self) -> None:
        pass


def called(port: int) -> Any:
    request = SimpleNamespace(url=httpx.URL(f"http://reviews:{port}/"))
    return SimpleNamespace(request=request, scheme="http", call=SimpleNamespace(cluster=None))


def test_a_channel_is_opened_in_a_child_though_another_thread_was_opening_one() -> None:
    opening, opened = threading.Event(), threading.Event()

    class Slow(Idle):
        """A channel that takes its time to be made."""

        def __init__(self, *_: object, **__: object) -> None:
            if threading.current_thread() is not threading.main_thread():
                opening.set()
                assert opened.wait(20)

    class Channels(ChannelSet[Idle]):
        def _plain_class(self) -> Any:
            return Slow

        def _tls_class(self) -> Any:
            return Slow

    channels = Channels(Options(), Tls(httpx, True, http2=False, trust_env=False), PLAIN)
    here, there = EndpointState("127.0.0.1", 1, 0.0), EndpointState("127.0.0.1", 2, 0.0)
    thread = threading.Thread(target=lambda: channels.get(there, called(2)))
    thread.start()
    try:
        assert opening.wait(20)
        assert in_child(lambda: isinstance(channels.get(here, called(1)), Idle))
    finally:
        opened.set()
        thread.join()


def test_a_tls_context_is_built_in_a_child_though_another_thread_was_building_it() -> None:
    building, built = threading.Event(), threading.Event()

    class Client:
        @staticmethod
        def create_ssl_context(**options: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                building.set()
                assert built.wait(20)
            return SimpleNamespace(set_alpn_protocols=lambda names: None)

    tls = Tls(Client, True, http2=False, trust_env=False)  # type: ignore[arg-type]  # as much of httpx as is needed
    thread = threading.Thread(target=tls.context)
    thread.start()
    try:
        assert building.wait(20)
        assert in_child(lambda: tls.context() is not None)
    finally:
        built.set()
        thread.join()


def test_a_host_outside_the_mesh_is_called_on_a_connection_of_the_childs_own(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        while peer.head():
            peer.send(OK.replace(b"ok", b"%02d" % peer.number))

    mesh = meshlib.Mesh(MemoryRegistry(), state_dir=tmp_path)
    with Server(script) as server, mesh, meshlib.Client(mesh=mesh, trust_env=False) as client:

        def get() -> str:
            return client.get(f"http://127.0.0.1:{server.port}/").text

        assert (get(), get()) == ("01", "01")
        assert in_child(lambda: get() == "02")
        assert get() == "01"


def test_a_service_is_called_on_a_connection_of_the_childs_own(tmp_path: Path) -> None:
    with Server(answering()) as server:
        registry = f"sqlite://{tmp_path}/mesh.db"
        mesh = meshlib.Mesh(registry, service="reviews", address=f"127.0.0.1:{server.port}", state_dir=tmp_path)
        with mesh, meshlib.Client(mesh=mesh) as client:
            mesh.serve()
            eventually(lambda: mesh.status().endpoints)
            assert client.get("http://reviews/").text == "ok"
            assert in_child(lambda: client.get("http://reviews/").text == "ok")
            assert client.get("http://reviews/").text == "ok"
        assert server.connections == 2
