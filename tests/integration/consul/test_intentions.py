"""Consul's intentions decide about the next request, on open connections too, by whom the certificate names."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import meshlib
from meshlib.cli import main
from tests.support import eventually
from tests.support.consul import ConsulAgent
from tests.support.servers import Fleet

APPS = Path(__file__).parents[1] / "apps"
WITHIN = 1.0
PATIENCE = 20.0
MANY_CALLS = 5

numbers = itertools.count()


class Place:
    """A guarded service, whoever calls it, and the intentions of the test."""

    def __init__(self, agent: ConsulAgent, folder: Path, stack: contextlib.ExitStack) -> None:
        number = next(numbers)
        self.agent = agent
        self.service, self.web, self.rogue = f"guarded-{number}", f"web-{number}", f"rogue-{number}"
        self._folder = folder
        self._stack = stack
        self._made: dict[str, str] = {}
        fleet = Fleet(folder, APPS)
        stack.callback(fleet.end)
        stack.callback(self._forget)
        self.server = fleet.start(self.service, "guarded.py", MESHLIB_REGISTRY=agent.url, MESHLIB_IDENTITY="consul")
        eventually(self._is_registered, PATIENCE)

    def _is_registered(self) -> bool:
        assert self.server.process.poll() is None, self.server.written()
        return bool(self.agent.get(f"/v1/health/service/{self.service}?passing"))

    def client(self, caller: str | None, **headers: str) -> meshlib.Client:
        """A client in the mesh of `caller`, with its identity; None: without any."""
        identity = "none" if caller is None else "consul"
        state = self._folder / f"state-{next(numbers)}"
        mesh = meshlib.Mesh(self.agent.url, service=caller, identity=identity, state_dir=state)
        self._stack.enter_context(mesh)
        return self._stack.enter_context(meshlib.Client(mesh=mesh, headers=headers))

    def ask(self, client: meshlib.Client) -> httpx.Response:
        return client.get(f"http://{self.service}/")

    def intend(self, source: str, action: str) -> None:
        """Have the intention for `source`."""
        wanted = {"SourceName": source, "DestinationName": self.service, "Action": action}
        known = self._made.get(source)
        if known is None:
            answer = self.agent.request("POST", "/v1/connect/intentions", wanted)
            assert answer.status == 200, answer.body
            self._made[source] = answer.json()["ID"]
        else:
            self.agent.put(f"/v1/connect/intentions/{known}", wanted)

    def withdraw(self, source: str) -> None:
        self.agent.delete(f"/v1/connect/intentions/{self._made.pop(source)}")

    def _forget(self) -> None:
        for source in list(self._made):
            self.withdraw(source)

    def lag(self, change: Callable[[], object], client: meshlib.Client, status: int) -> float:
        """Seconds from Consul's word about a change until a call is answered with `status`, and from then on."""
        change()
        answered = time.monotonic()
        eventually(lambda: self.ask(client).status_code == status, PATIENCE)
        found = time.monotonic() - answered
        assert {self.ask(client).status_code for _ in range(MANY_CALLS)} == {status}
        return found


@pytest.fixture
def place(consul: ConsulAgent, tmp_path: Path) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        yield Place(consul, tmp_path, stack)


def test_a_denied_intention_stops_the_next_request_on_an_open_connection(place: Place) -> None:
    client = place.client(place.web)
    before = place.ask(client).json()
    assert before["caller"].endswith(f"/svc/{place.web}")
    denied = place.lag(lambda: place.intend(place.web, "deny"), client, 403)
    reply = place.ask(client)
    assert reply.headers["x-meshlib-reason"] == "RBAC"
    assert f"/svc/{place.web} may not do this" in reply.json()["detail"]
    allowed = place.lag(lambda: place.intend(place.web, "allow"), client, 200)
    # It was the same connection all the time.
    assert place.ask(client).json() == before
    print(f"denied after {denied * 1000:.0f} ms, allowed after {allowed * 1000:.0f} ms")
    assert denied <= WITHIN
    assert allowed <= WITHIN
    assert f"the intention for default/{place.web} says deny" in place.server.written()


def test_who_is_allowed_by_name_comes_in_where_all_others_are_denied(place: Place) -> None:
    web, rogue, nobody = place.client(place.web), place.client(place.rogue), place.client(None)
    assert [place.ask(client).status_code for client in (web, rogue, nobody)] == [200, 200, 200]
    place.intend(place.web, "allow")
    assert place.lag(lambda: place.intend("*", "deny"), rogue, 403) <= WITHIN
    assert [place.ask(client).status_code for client in (web, rogue, nobody)] == [200, 403, 403]
    assert place.lag(lambda: place.intend("*", "allow"), rogue, 200) <= WITHIN
    assert place.lag(lambda: place.intend(place.web, "deny"), web, 403) <= WITHIN
    assert [place.ask(client).status_code for client in (web, rogue, nobody)] == [403, 200, 200]
    place.withdraw("*")
    assert place.lag(lambda: place.withdraw(place.web), web, 200) <= WITHIN


def test_the_command_explains_by_intentions(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.intend(place.rogue, "deny")
    ask = ["explain", "--inbound", "/", "--service", place.service, "--registry", place.agent.url, "--from"]
    assert main([*ask, f"spiffe://any.consul/ns/default/dc/dc1/svc/{place.web}"]) == 0
    assert main([*ask, f"spiffe://any.consul/ns/default/dc/dc1/svc/{place.rogue}"]) == 1
    assert f"denied, 403 RBAC: the intention for default/{place.rogue} says deny" in capsys.readouterr().out


def test_the_certificate_counts_and_no_header(place: Place) -> None:
    domain = place.agent.get("/v1/connect/ca/roots")["TrustDomain"]
    web = f"spiffe://{domain}/ns/default/dc/dc1/svc/{place.web}"
    forged = {"x-forwarded-client-cert": f"By={web};Hash=00;URI={web}"}
    rogue, nobody = place.client(place.rogue, **forged), place.client(None, **forged)
    place.intend(place.web, "allow")
    place.lag(lambda: place.intend("*", "deny"), rogue, 403)
    assert place.ask(nobody).status_code == 403
    assert place.ask(place.client(place.web)).json()["caller"] == web


def test_no_plan_lets_in_whom_an_intention_denies_not_even_the_first(place: Place, tmp_path: Path) -> None:
    place.intend("*", "deny")
    with meshlib.Mesh(place.agent.url, service=place.service, state_dir=tmp_path / "early") as mesh:
        assert mesh.plan is not None
        intentions = mesh.plan.inbound.intentions
        assert intentions is not None
        assert [(rule.source, rule.action) for rule in intentions.rules] == [("*", "deny")]
