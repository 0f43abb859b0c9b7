"""Certificates and roots that turn in running processes, under load: nobody notices, and what is old stays outside."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

import meshlib
from meshlib.identity.certificates import split
from meshlib.registries import default_url, open_registry
from tests.integration.workers.fleet import loaded
from tests.integration.workers.realm import Answered, Realm, address, ask, shown
from tests.support import eventually, eventually_async
from tests.support.authority import Authority
from tests.support.servers import Fleet, Server

EVERY = 2.0
TURNS = 30
LIFETIME = 10.0  # seconds of a certificate, so that connections age out under the load, too
RATE = 160.0

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    started = Fleet(tmp_path, Path(__file__).parent / "apps")
    yield started
    started.end()


def apply(fleet: Fleet, text: str) -> None:
    async def run() -> None:
        registry = open_registry(default_url(fleet.state_dir))
        try:
            await registry.apply(loaded(text))
        finally:
            await registry.aclose()

    asyncio.run(run())


class Record(NamedTuple):
    """One call; times are monotonic seconds."""

    began: float
    ended: float
    connection: str
    peer: str | None
    attempts: int
    error: str


class Load:
    """Calls by lanes of async and sync code; every fourth lane opens a connection for each call.

    Attributes:
        records: of the calls that have ended.
    """

    def __init__(self, mesh: meshlib.Mesh, rate: float = RATE, url: str = "http://reviews/") -> None:
        self.records: list[Record] = []
        self._mesh = mesh
        self._url = url
        self._pause = 12 / rate
        self._ended = threading.Event()

    @contextlib.asynccontextmanager
    async def on(self) -> AsyncIterator[None]:
        """Go on inside the block; at its end every call has ended."""
        with meshlib.Client(mesh=self._mesh) as client:
            async with meshlib.AsyncClient(mesh=self._mesh) as asynchronous, asyncio.TaskGroup() as group:
                for lane in range(8):
                    group.create_task(self._lane(asynchronous, lane))
                threads = [group.create_task(asyncio.to_thread(self._sync_lane, client, lane)) for lane in range(4)]
                try:
                    yield
                finally:
                    self._ended.set()
                    await asyncio.wait(threads)

    async def _lane(self, client: meshlib.AsyncClient, lane: int) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                self._note(began, await client.get(self._url, headers=_headers(lane)))
            except httpx.HTTPError as error:
                self._failed(began, error)
            due = max(due + self._pause, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    def _sync_lane(self, client: meshlib.Client, lane: int) -> None:
        due = time.monotonic()
        while not self._ended.wait(due - time.monotonic()):
            began = time.monotonic()
            try:
                self._note(began, client.get(self._url, headers=_headers(lane)))
            except httpx.HTTPError as error:
                self._failed(began, error)
            due = max(due + self._pause, time.monotonic())

    def _note(self, began: float, response: httpx.Response) -> None:
        ended = time.monotonic()
        attempts = len(response.extensions["meshlib"].evidence(ended).attempts)
        if response.status_code != 200:
            self.records.append(Record(began, ended, "", None, attempts, f"{response.status_code} {response.text}"))
            return
        told = response.json()
        self.records.append(Record(began, ended, told["connection"], told["peer"], attempts, ""))

    def _failed(self, began: float, error: httpx.HTTPError) -> None:
        self.records.append(Record(began, time.monotonic(), "", None, 0, repr(error)))

    @property
    def errors(self) -> list[str]:
        return [record.error for record in self.records if record.error]

    async def further(self, calls: int) -> None:
        """Go on until that many calls from now on have ended."""
        target = len(self.records) + calls
        await eventually_async(lambda: len(self.records) >= target, 60.0)


def _headers(lane: int) -> dict[str, str]:
    return {"connection": "close"} if lane % 4 == 0 else {}


class Place:
    """Two servers and a caller whose certificates turn together."""

    def __init__(self, realm: Realm, fleet: Fleet) -> None:
        self.realm = realm
        names = ("reviews-1", "reviews-2")
        self.servers: dict[str, Server] = {name: realm.serve(fleet, name) for name in names}
        self.addresses = {name: address(server) for name, server in self.servers.items()}
        fleet.wait_for("reviews", 2)
        self.mesh = realm.mesh(fleet, "web")

    def turn(self) -> float:
        """New certificates for everybody; when everybody has them, in monotonic seconds."""
        issued = {name: split(self.realm.lay_down(name).certificates)[0] for name in (*self.servers, "web")}
        identity = self.mesh.identity
        assert identity is not None
        for name, where in self.addresses.items():
            eventually(lambda name=name, where=where: shown(where) == issued[name], 20.0)  # type: ignore[misc]
        eventually(lambda: identity.material is not None and identity.material.certificates == issued["web"], 20.0)
        return time.monotonic()


class OfOld:
    """Somebody with a certificate of a root that is going to be withdrawn, and sessions from before."""

    def __init__(self, place: Place) -> None:
        self._place = place
        versions = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        self._contexts = [place.realm.caller("of-old", version) for version in versions]
        for context in self._contexts:
            for root in place.realm.roots:
                context.load_verify_locations(cadata=root.roots.decode())
        self._sessions: list[ssl.SSLSession | None] = []
        for context in self._contexts:
            answered = [ask(where, context) for where in place.addresses.values()]
            assert all(one.ok for one in answered)
            self._sessions += [one.session for one in answered]

    def trust(self, root: Authority) -> None:
        """Let no refusal be this one's own."""
        for context in self._contexts:
            context.load_verify_locations(cadata=root.roots.decode())

    def tries(self) -> list[Answered]:
        """With the sessions of before, and without."""
        sessions = iter(self._sessions)
        found = []
        for context in self._contexts:
            for where in self._place.addresses.values():
                found += [ask(where, context, next(sessions)), ask(where, context)]
        return found


class Story:
    """What happens turn by turn: two roots are withdrawn, each when everybody has leafs of the next one.

    Attributes:
        withdrawn: when it began and when everybody had heard of it, for each root.
        tried: what came, after that, of attempts to get in with a certificate of the old root.
    """

    def __init__(self, place: Place) -> None:
        self.withdrawn: list[tuple[float, float]] = []
        self.tried: list[Answered] = []
        self._place = place
        self._others = [Authority("second"), Authority("third")]
        self._of_old: OfOld | None = None

    def turn(self, number: int) -> None:
        realm = self._place.realm
        match number:
            case 5 | 17:
                self._of_old = OfOld(self._place)
            case 6 | 18:  # both are trusted,
                realm.roots = (realm.issuer, self._others.pop(0))
            case 9 | 21:  # then leafs come from the new one,
                realm.issuer = realm.roots[-1]
            case 12 | 24:  # then the old one goes.
                self._withdraw()
                return
        self._place.turn()

    def _withdraw(self) -> None:
        realm, of_old = self._place.realm, self._of_old
        assert of_old is not None
        realm.roots = (realm.issuer,)
        began = time.monotonic()
        self.withdrawn.append((began, self._place.turn()))
        of_old.trust(realm.issuer)
        self.tried += of_old.tries()


async def minute(story: Story, load: Load) -> float:
    """The seconds it took."""
    async with load.on():
        began = time.monotonic()
        for number in range(TURNS):
            await asyncio.to_thread(story.turn, number)
            await asyncio.sleep(began + (number + 1) * EVERY - time.monotonic())
        return time.monotonic() - began


def test_a_minute_of_rotations_with_two_changes_of_the_root_fails_no_call(fleet: Fleet, tmp_path: Path) -> None:
    apply(fleet, STRICT)
    place = Place(Realm(tmp_path / "realm", LIFETIME), fleet)
    story, load = Story(place), Load(place.mesh)
    with place.mesh:
        seconds = asyncio.run(minute(story, load))
    calls = len(load.records)
    extra = sum(record.attempts for record in load.records) - calls
    print(f"{calls} calls in {seconds:.1f} s, {len(load.errors)} failed, {extra} extra attempts")
    assert load.errors == []
    assert extra == 0, "calls were saved by retries"
    assert calls >= 100 * seconds
    assert {record.peer for record in load.records} == {Realm.id("web")}
    assert len(story.tried) == 16
    assert not any(one.came or one.reused for one in story.tried)
    for began, ended in story.withdrawn:
        before = {record.connection for record in load.records if record.ended < began}
        after = {record.connection for record in load.records if record.began > ended}
        assert before
        assert after
        assert not before & after, "a connection from before the withdrawal was used on"
    for server in place.servers.values():
        assert "Traceback" not in server.written()
