"""With ACLs that deny by default, a service needs the rules of docs/how-to/consul.md, and is told which it lacks."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import meshlib
from meshlib.resources.intentions import Intentions
from tests.integration.workers.fleet import environment
from tests.support import eventually
from tests.support.consul import ConsulAgent, StartConsul
from tests.support.fences import DOCS, blocks
from tests.support.routes import route_named
from tests.support.servers import Fleet, Server

APPS = Path(__file__).parents[1] / "apps"
PATIENCE = 20.0

OURS = 'service "web" { policy = "write" }'
CALLED = 'service "reviews" { policy = "read" }'
NODES = 'node_prefix "" { policy = "read" }'
KEYS = 'key_prefix "meshlib/" { policy = "read" }'
RULES = (OURS, CALLED, NODES, KEYS)

REVIEWS = (OURS.replace("web", "reviews"), NODES, KEYS)
"""What a service needs that calls nobody."""

OPERATOR = ('key_prefix "meshlib/" { policy = "write" }', 'service_prefix "" { policy = "read" }', NODES)


class Place:
    """An agent with ACLs, and who is there."""

    def __init__(self, agent: ConsulAgent, folder: Path, stack: contextlib.ExitStack) -> None:
        self.agent = agent
        self.folder = folder
        self._stack = stack
        self._number = 0

    def guarded(self) -> Server:
        """The service `reviews` as a process, with a token of its own."""
        fleet = Fleet(self.folder, APPS)
        self._stack.callback(fleet.end)
        token = self.token(*REVIEWS)
        variables = {"MESHLIB_REGISTRY": self.agent.url, "MESHLIB_IDENTITY": "consul", "CONSUL_HTTP_TOKEN": token}
        server = fleet.start("reviews", "guarded.py", **variables)

        def is_registered() -> bool:
            assert server.process.poll() is None, server.written()
            return bool(self.agent.get("/v1/health/service/reviews?passing"))

        eventually(is_registered, PATIENCE)
        return server

    def token(self, *rules: str) -> str:
        return self.agent.new_token("\n".join(rules) or 'key "nothing" { policy = "read" }')

    def mesh(self, option: str = "", *, service: str | None = "web") -> meshlib.Mesh:
        """A mesh of `web`, with what token the environment has; it is told to register."""
        self._number += 1
        state = self.folder / f"state-{self._number}"
        identity = "none" if service is None else "consul"
        mesh = meshlib.Mesh(self.agent.url + option, service=service, identity=identity, state_dir=state)
        self._stack.enter_context(mesh)
        if service is not None:
            mesh.takes_tls = True
            mesh.serve(("127.0.0.1", 9))
        return mesh

    def meshlib(self, *arguments: str, token: str, text: str = "", status: int = 0) -> str:
        """What the command says."""
        done = subprocess.run(
            [sys.executable, "-m", "meshlib", "--registry", self.agent.url, *arguments],
            input=text,
            env=environment(MESHLIB_STATE_DIR=str(self.folder), CONSUL_HTTP_TOKEN=token),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def place(start_consul: StartConsul, tmp_path: Path) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        yield Place(start_consul(acl=True), tmp_path, stack)


def routes(mesh: meshlib.Mesh) -> list[str]:
    return [candidate.route for candidate in mesh.explain("GET", "http://reviews/").candidates]


def said_of(mesh: meshlib.Mesh) -> str:
    status = mesh.status()
    return "\n".join((status.error, status.registration_error, status.identity_error, *status.warnings)).strip()


def test_a_service_and_its_caller_live_by_the_rules_of_the_how_to(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [block.text for block in blocks(DOCS / "how-to" / "consul.md", "hcl")]
    assert {tuple(re.sub(r"\s*#.*", "", text).strip().splitlines()) for text in written} >= {RULES, OPERATOR}
    allowed = {"SourceName": "web", "DestinationName": "reviews", "Action": "allow"}
    intention = place.agent.request("POST", "/v1/connect/intentions", allowed).json()["ID"]
    place.meshlib("apply", "-f", "-", token=place.token(*OPERATOR), text=route_named("written"))
    server = place.guarded()
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", place.token(*RULES))
    mesh = place.mesh()
    with meshlib.Client(mesh=mesh) as client:
        reply = client.get("http://reviews/")
        assert (reply.status_code, reply.json()["caller"].endswith("/svc/web")) == (200, True)
        assert routes(mesh) == ["reviews[written]"]
        eventually(lambda: mesh.status().registered, PATIENCE)
        # Of whom no intention speaks, the ACLs' default decides.
        place.agent.delete(f"/v1/connect/intentions/{intention}")
        eventually(lambda: client.get("http://reviews/").status_code == 403, 1.0)
        assert "no intention fits default/web, and the default is deny" in server.written()
    assert said_of(mesh) == ""
    place.agent.put("/v1/config", {"Kind": "service-resolver", "Name": "reviews", "ConnectTimeout": "3s"})
    cluster = "reviews.default.svc.cluster.local"
    eventually(lambda: mesh.plan is not None and mesh.plan.clusters[cluster].limits.connect_timeout == 3.0)


def test_without_a_rule_the_status_names_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for lacking in RULES:
        others = [rule for rule in RULES if rule != lacking]
        monkeypatch.setenv("CONSUL_HTTP_TOKEN", place.token(*others))
        with place.mesh() as mesh:
            mesh.explain("GET", "http://reviews/")
            eventually(lambda lacking=lacking: lacking in said_of(mesh), PATIENCE)  # type: ignore[misc]
            assert not [rule for rule in others if rule in said_of(mesh)]


def test_whose_intentions_may_not_be_read_calls_and_lets_nobody_in(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.agent.put("/v1/agent/service/register", {"Name": "reviews", "Address": "127.0.0.1", "Port": 9})
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", place.token(CALLED, NODES, KEYS))
    mesh = place.mesh()
    assert len(mesh.explain("GET", "http://reviews/").clusters[0].endpoints) == 1
    assert mesh.plan is not None
    assert mesh.plan.inbound.intentions == Intentions((), default_allow=False)
    assert OURS in said_of(mesh)


def test_a_script_needs_no_right_to_write(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.agent.put("/v1/agent/service/register", {"Name": "reviews", "Address": "127.0.0.1", "Port": 9})
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", place.token(CALLED, NODES, KEYS))
    mesh = place.mesh(service=None)
    assert len(mesh.explain("GET", "http://reviews/").clusters[0].endpoints) == 1
    assert said_of(mesh) == ""


def test_a_token_in_a_file_is_replaced_while_the_process_runs(place: Place) -> None:
    first, second = place.token(*RULES), place.token(*RULES)
    file = place.folder / "token"
    file.write_text(f"{first}\n")
    mesh = place.mesh(f"?token_file={file}")
    eventually(lambda: mesh.status().registered and mesh.status().ok, PATIENCE)
    known = place.agent.request("GET", "/v1/acl/token/self", token=first).json()
    aside = place.folder / "token.new"
    aside.write_text(f"{second}\n")
    aside.rename(file)
    place.agent.delete(f"/v1/acl/token/{known['AccessorID']}")
    for number in (1, 2):
        text = route_named(f"written-{number}")
        place.meshlib("apply", "-f", "-", token=place.agent.token, text=text)
        eventually(lambda number=number: routes(mesh) == [f"reviews[written-{number}]"], PATIENCE)  # type: ignore[misc]
    eventually(lambda: mesh.status().ok, PATIENCE)
    place.agent.put("/v1/agent/service/deregister/" + next(iter(place.agent.get("/v1/agent/services"))))
    eventually(lambda: place.agent.get("/v1/agent/services"), PATIENCE)  # put back with the new token


def test_a_token_that_may_no_longer_read_documents_deletes_none(place: Place) -> None:
    file = place.folder / "token"
    file.write_text(place.token(*RULES))
    place.meshlib("apply", "-f", "-", token=place.agent.token, text=route_named("written"))
    mesh = place.mesh(f"?token_file={file}")
    assert routes(mesh) == ["reviews[written]"]
    aside = place.folder / "token.new"
    aside.write_text(place.token(OURS, CALLED, NODES))
    aside.rename(file)
    # The query that waits was let in with the old token; the next one isn't, and has its answer at the next change.
    for name in ("second", "third"):
        text = route_named(name)
        place.meshlib("apply", "-f", "-", token=place.agent.token, text=text)
    eventually(lambda: KEYS in said_of(mesh), PATIENCE)
    assert routes(mesh) == ["reviews[second]"]


def test_an_operator_is_told_which_rule_lacks(place: Place) -> None:
    writes, services, machines = OPERATOR
    place.agent.put("/v1/agent/service/register", {"Name": "reviews", "Address": "127.0.0.1", "Port": 9})
    said = place.meshlib(
        "apply", "-f", "-", token=place.token(KEYS, services, machines), text=route_named("written"), status=1
    )
    assert writes in said
    place.meshlib("apply", "-f", "-", token=place.token(writes), text=route_named("written"))
    whole = place.meshlib("status", token=place.token(*OPERATOR))
    assert re.search(r"default +reviews +1", whole)
    assert "warning" not in whole
    assert services in place.meshlib("status", token=place.token(writes, machines))
    assert machines in place.meshlib("status", token=place.token(writes, services))
    place.meshlib("delete", "vs", "reviews", token=place.token(writes))
