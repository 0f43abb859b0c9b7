"""Certificates and roots that turn in running processes, under load: nobody notices, and what is old stays outside."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshlib.identity.certificates import split
from tests.integration.workers.fleet import Worker
from tests.integration.workers.lanes import Load, Record
from tests.integration.workers.realm import Answered, Realm, address, ask, put_in, shown
from tests.support import eventually
from tests.support.authority import Authority
from tests.support.servers import Fleet, Server

EVERY = 2.0
TURNS = 30
LIFETIME = 10.0  # seconds of a certificate, so that connections age out under the load, too

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


def lives(records: list[Record]) -> dict[str, float]:
    """How long each connection was in use, in seconds."""
    first: dict[str, float] = {}
    return {
        record.connection: record.began - first.setdefault(record.connection, record.began)
        for record in sorted(records)
    }


async def minute(story: Story, load: Load) -> float:
    """The seconds it took."""
    async with load.on():
        began = time.monotonic()
        for number in range(TURNS):
            await asyncio.to_thread(story.turn, number)
            await asyncio.sleep(began + (number + 1) * EVERY - time.monotonic())
        return time.monotonic() - began


def test_a_minute_of_rotations_with_two_changes_of_the_root_fails_no_call(fleet: Fleet, tmp_path: Path) -> None:
    put_in(fleet, STRICT)
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
    longest = max(lives(load.records).values())
    print(f"the longest that a connection was used: {longest:.1f} s")
    assert longest > EVERY, "each renewal has closed the connections of before"
    assert longest < LIFETIME, "a connection was used on after the certificate it was opened with"
    for server in place.servers.values():
        assert "Traceback" not in server.written()


GUNICORN = ("-m", "gunicorn", "--bind", "127.0.0.1:0", "--no-control-socket", "--config", "mtls_gunicorn.py")
FORKING = {
    "gunicorn": ("mtls_forked:application",),
    "gunicorn with threads": ("--threads", "4", "mtls_forked:application"),
    "gunicorn with asgi": ("--worker-class", "asgi", "mtls_forked:app"),
}


class Workers:
    """A server of two processes, forked from one that had opened the mesh already, and its caller."""

    def __init__(self, kind: str, realm: Realm, fleet: Fleet) -> None:
        self.realm = realm
        self.reviews = realm.serve(fleet, "reviews")
        self.reviews_at = address(self.reviews)
        fleet.wait_for("reviews")
        self.server = realm.serve(fleet, "front", *GUNICORN, "--preload", "--workers", "2", *FORKING[kind])
        self.at = address(self.server)
        self.instance = fleet.wait_for("front")[0]
        self.caller = realm.caller("somebody")

    def turn(self) -> None:
        """New certificates for both services; returns when each of the processes shows its own."""
        reviews, front = (split(self.realm.lay_down(name).certificates)[0] for name in ("reviews", "front"))
        eventually(lambda: shown(self.reviews_at) == reviews, 20.0)
        new: set[int] = set()

        def every_worker_shows_it() -> bool:
            answered = ask(self.at, self.caller)
            if answered.shown == front:
                new.add(answered.body["pid"])
            return len(new) == 2

        eventually(every_worker_shows_it, 20.0)


@pytest.mark.parametrize("kind", FORKING)
def test_workers_forked_from_a_process_with_an_open_mesh_turn_with_it(kind: str, fleet: Fleet, tmp_path: Path) -> None:
    realm = Realm(tmp_path / "realm")
    put_in(fleet, STRICT)
    workers = Workers(kind, realm, fleet)
    assert workers.instance.identity == Realm.id("front")
    first, second = realm.issuer, Authority("second")
    of_old = workers.caller
    of_old.load_verify_locations(cadata=second.roots.decode())
    realm.roots = (first, second)
    workers.turn()
    realm.issuer = second
    workers.caller = realm.caller("somebody")
    workers.caller.load_verify_locations(cadata=first.roots.decode())
    workers.turn()
    realm.roots = (second,)
    workers.turn()
    assert [ask(workers.at, of_old).came for _ in range(8)] == [b""] * 8
    told = [ask(workers.at, workers.caller).body for _ in range(8)]
    assert {one["peer"] for one in told} == {Realm.id("somebody")}
    # `reviews` trusts the new root alone: what a worker shows on its way out has turned, too.
    assert [one["known_as"] for one in told] == [[Realm.id("front")] * 2] * 8
    assert "Traceback" not in workers.server.written()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_child_that_makes_its_first_call_long_after_the_fork_has_the_newest_certificate(
    kind: str, fleet: Fleet, tmp_path: Path
) -> None:
    realm = Realm(tmp_path / "realm")
    put_in(fleet, STRICT)
    at = address(realm.serve(fleet, "reviews"))
    fleet.wait_for("reviews")
    realm.lay_down("web")
    program = Worker("late_child", kind, MESHLIB_STATE_DIR=str(fleet.state_dir), MESHLIB_IDENTITY=realm.url("web"))
    try:
        assert program.line() == "forked"
        realm.issuer = Authority("second")
        realm.roots = (realm.issuer,)
        realm.lay_down("web")
        issued = split(realm.lay_down("reviews").certificates)[0]
        eventually(lambda: shown(at) == issued, 20.0)
        program.say("go")
        assert program.line() == f"{Realm.id('web')} 1"
    finally:
        program.end()
