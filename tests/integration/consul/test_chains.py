"""Consul's own routers, splitters and resolvers are obeyed by calls within a second; a document goes before them."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import meshlib
from tests.integration.workers.fleet import environment
from tests.support import eventually
from tests.support.consul import ConsulAgent, StartCluster
from tests.support.servers import Fleet

APPS = Path(__file__).parents[1] / "apps"
WITHIN = 1.0
PATIENCE = 20.0
CALLS = 400

DOCUMENT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mine}
spec:
  hosts: [%s]
  http:
  - match: [{headers: {mine: {exact: "yes"}}}]
    rewrite: {uri: /by-the-document/}
    route: [{destination: {host: %s}}]
  - route: [{destination: {host: %s}}]
"""

numbers = itertools.count()


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with who it is and what was asked for."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece, or each answer waits 40 ms for an acknowledgement
    name = ""

    def do_GET(self) -> None:
        body = f"{self.name} {self.path}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


class Servers(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100


class Scene:
    """Instances that Consul knows, its config entries, and a caller; all under names of this test's own."""

    def __init__(self, agent: ConsulAgent, folder: Path, stack: contextlib.ExitStack) -> None:
        self.agent = agent
        self.folder = folder
        self.own = f"chained{next(numbers)}"
        self.registry = f"{agent.url}?prefix={self.own}"
        self._stack = stack
        self._entries: list[tuple[ConsulAgent, str]] = []
        stack.callback(self._forget)

    def serve(self, service: str, version: str, agent: ConsulAgent | None = None) -> Callable[[], object]:
        """One more instance, which answers `<service>-<version> <path>`; the answer takes it out of Consul."""
        agent = agent or self.agent
        name = f"{self.name(service)}-{version}"
        handler = type("Named", (Echo,), {"name": f"{service}-{version}"})
        server = self._stack.enter_context(Servers(("127.0.0.1", 0), handler))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(server.shutdown)
        said = {"Name": self.name(service), "ID": name, "Address": "127.0.0.1", "Port": server.server_port}
        agent.put("/v1/agent/service/register", {**said, "Meta": {"version": version}})

        def withdraw() -> None:
            agent.put(f"/v1/agent/service/deregister/{name}")

        self._stack.callback(agent.request, "PUT", f"/v1/agent/service/deregister/{name}")
        return withdraw

    def name(self, service: str) -> str:
        return f"{self.own}-{service}"

    def config(self, kind: str, service: str, **entry: Any) -> None:
        """Write a config entry; services named in it are to be `name`s."""
        self.agent.put("/v1/config", {"Kind": kind, "Name": self.name(service), **entry})
        self._entries.append((self.agent, f"/v1/config/{kind}/{self.name(service)}"))

    def unconfig(self, kind: str, service: str) -> None:
        self.agent.delete(f"/v1/config/{kind}/{self.name(service)}")

    def _forget(self) -> None:
        for agent, path in reversed(self._entries):
            agent.delete(path)

    def start(self, **options: Any) -> None:
        """Open the caller's mesh."""
        self.mesh = self._stack.enter_context(meshlib.Mesh(self.registry, state_dir=self.folder / "state", **options))
        self.client = self._stack.enter_context(meshlib.Client(mesh=self.mesh))

    def call(self, service: str, path: str = "/", **headers: str) -> str:
        return self.client.get(f"http://{self.name(service)}{path}", headers=headers).text

    def in_force(self, shows: Callable[[], object]) -> None:
        """What was written last is in force within a second, or within another when the machine stood still."""
        written = time.monotonic()
        eventually(shows, PATIENCE)
        lag = time.monotonic() - written
        print(f"in force after {lag * 1000:.0f} ms")
        assert lag <= WITHIN

    def meshlib(self, *arguments: str, text: str = "") -> str:
        """What the command says."""
        done = subprocess.run(
            [sys.executable, "-m", "meshlib", "--registry", self.registry, *arguments],
            input=text, env=environment(MESHLIB_STATE_DIR=str(self.folder)), capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def subsets(*versions: str) -> dict[str, dict[str, str]]:
    return {version: {"Filter": f"Service.Meta.version == {version}"} for version in versions}


@pytest.fixture
def scene(consul: ConsulAgent, tmp_path: Path) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        yield Scene(consul, tmp_path, stack)


@pytest.fixture
def versions(scene: Scene) -> Scene:
    """`reviews` speaks HTTP and has two versions, as subsets."""
    for version in ("v1", "v2"):
        scene.serve("reviews", version)
    scene.config("service-defaults", "reviews", Protocol="http")
    scene.config("service-resolver", "reviews", DefaultSubset="v1", Subsets=subsets("v1", "v2"))
    scene.start()
    eventually(lambda: scene.call("reviews") == "reviews-v1 /", PATIENCE)
    return scene


def test_a_splitter_divides_calls_and_takes_its_hand_off_again(versions: Scene) -> None:
    splits = [{"Weight": 80, "ServiceSubset": "v1"}, {"Weight": 20, "ServiceSubset": "v2"}]
    versions.config("service-splitter", "reviews", Splits=splits)
    versions.in_force(lambda: len(shares(versions)) == 2)
    counts = Counter(versions.call("reviews") for _ in range(CALLS))
    assert 0.12 < counts["reviews-v2 /"] / CALLS < 0.28  # four standard deviations
    assert counts.total() == counts["reviews-v1 /"] + counts["reviews-v2 /"]
    versions.unconfig("service-splitter", "reviews")
    versions.in_force(lambda: len(shares(versions)) == 1)
    assert {versions.call("reviews") for _ in range(20)} == {"reviews-v1 /"}


def shares(scene: Scene) -> list[float]:
    explained = scene.mesh.explain("GET", f"http://{scene.name('reviews')}/")
    return [cluster.share for cluster in explained.clusters]


def test_a_router_chooses_by_header_and_rewrites_paths(versions: Scene) -> None:
    by_header = {"HTTP": {"Header": [{"Name": "x-tester", "Exact": "jason"}]}}
    routes = [
        {"Match": by_header, "Destination": {"ServiceSubset": "v2"}},
        {"Match": {"HTTP": {"PathPrefix": "/old/"}}, "Destination": {"PrefixRewrite": "/new/"}},
    ]
    versions.config("service-router", "reviews", Routes=routes)
    tester = {"x-tester": "jason"}
    versions.in_force(lambda: versions.call("reviews", **tester) == "reviews-v2 /")
    assert versions.call("reviews", **{"x-tester": "jasonine"}) == "reviews-v1 /"
    assert versions.call("reviews", "/old/42?page=1") == "reviews-v1 /new/42?page=1"
    assert versions.call("reviews", "/older") == "reviews-v1 /older"
    versions.unconfig("service-router", "reviews")
    versions.in_force(lambda: versions.call("reviews", **tester) == "reviews-v1 /")
    assert versions.call("reviews", "/old/42") == "reviews-v1 /old/42"


def test_a_subset_takes_in_whoever_is_registered_with_its_meta(versions: Scene) -> None:
    withdraw = versions.serve("reviews", "v1b")
    time_of_v1b = {"old": {"Filter": "Service.Meta.version == v1b"}}
    versions.config("service-resolver", "reviews", DefaultSubset="old", Subsets=time_of_v1b)
    versions.in_force(lambda: versions.call("reviews") == "reviews-v1b /")
    assert {versions.call("reviews") for _ in range(20)} == {"reviews-v1b /"}
    versions.config("service-resolver", "reviews", DefaultSubset="v2", Subsets=subsets("v1", "v2"))
    versions.in_force(lambda: versions.call("reviews") == "reviews-v2 /")
    withdraw()


def test_a_redirect_leads_to_another_service_until_it_is_deleted(scene: Scene) -> None:
    scene.serve("books", "v1")
    scene.serve("ratings", "v1")
    scene.start()
    assert scene.call("books") == "books-v1 /"
    scene.config("service-resolver", "books", Redirect={"Service": scene.name("ratings")})
    scene.in_force(lambda: scene.call("books") == "ratings-v1 /")
    assert {scene.call("books") for _ in range(20)} == {"ratings-v1 /"}
    scene.unconfig("service-resolver", "books")
    scene.in_force(lambda: scene.call("books") == "books-v1 /")


def test_a_document_for_the_same_host_wins_and_check_says_so(versions: Scene) -> None:
    routes = [{"Match": {"HTTP": {"PathPrefix": "/"}}, "Destination": {"PrefixRewrite": "/by-consul"}}]
    versions.config("service-router", "reviews", Routes=routes)
    versions.in_force(lambda: versions.call("reviews", "/a").endswith("/by-consula"))
    host = versions.name("reviews")
    versions.meshlib("apply", "-f", "-", text=DOCUMENT % (host, host, host))
    eventually(lambda: versions.call("reviews", "/a", mine="yes").endswith(" /by-the-document/a"), PATIENCE)
    assert versions.call("reviews", "/a").endswith(" /a")
    said = versions.meshlib("check")
    assert f"consul discovery-chain {host}" in said
    assert "shadowed: the VirtualService default/mine" in said
    assert any("shadowed" in str(note) for note in versions.mesh.status().notes)
    versions.meshlib("delete", "vs", "mine")
    eventually(lambda: versions.call("reviews", "/a").endswith("/by-consula"), PATIENCE)
    assert "shadowed" not in versions.meshlib("check")


def test_calls_go_to_another_datacenter_while_their_own_has_nobody_healthy(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    here = start_cluster(servers=1)
    there = start_cluster(servers=1, datacenter="dc2", join_wan=[here])
    agent = here.servers[0]
    with contextlib.ExitStack() as stack:
        scene = Scene(agent, tmp_path, stack)
        scene.serve("reviews", "dc1")
        scene.serve("reviews", "dc2", there.servers[0])
        name = scene.name("reviews")
        check = {"Name": "other", "ID": f"{name}-check", "TTL": "10m", "Status": "passing", "ServiceID": f"{name}-dc1"}
        agent.put("/v1/agent/check/register", check)
        eventually(lambda: agent.get(f"/v1/health/service/{name}?dc=dc2&passing"), PATIENCE)
        scene.start()
        assert scene.call("reviews") == "reviews-dc1 /"
        scene.config("service-resolver", "reviews", Failover={"*": {"Datacenters": ["dc2"]}})
        eventually(lambda: len(scene.mesh.plan.clusters) == 2 if scene.mesh.plan else False, PATIENCE)
        assert {scene.call("reviews") for _ in range(20)} == {"reviews-dc1 /"}
        agent.put(f"/v1/agent/check/fail/{name}-check")
        scene.in_force(lambda: scene.call("reviews") == "reviews-dc2 /")
        assert {scene.call("reviews") for _ in range(20)} == {"reviews-dc2 /"}
        agent.put(f"/v1/agent/check/pass/{name}-check")
        scene.in_force(lambda: scene.call("reviews") == "reviews-dc1 /")
        assert scene.client.get("http://reviews.service.dc2.consul".replace("reviews", name)).text == "reviews-dc2 /"


def test_failover_to_another_datacenter_is_by_mtls_with_the_identity_of_there(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    here = start_cluster(servers=1)
    there = start_cluster(servers=1, datacenter="dc2", join_wan=[here])
    agent = here.servers[0]
    with contextlib.ExitStack() as stack:
        scene = Scene(agent, tmp_path, stack)
        fleet = Fleet(tmp_path, APPS)
        stack.callback(fleet.end)
        name = scene.name("reviews")
        url = there.servers[0].url
        server = fleet.start(name, "guarded.py", MESHLIB_REGISTRY=url, MESHLIB_IDENTITY="consul")
        eventually(lambda: there.servers[0].get(f"/v1/health/service/{name}?passing"), PATIENCE)
        scene.config("service-resolver", "reviews", Failover={"*": {"Datacenters": ["dc2"]}})
        scene.start(service=scene.name("web"), identity="consul")
        reply = scene.client.get(f"http://{name}/")
        assert reply.status_code == 200, server.written()
        assert reply.json()["caller"].endswith(f"/dc/dc1/svc/{scene.name('web')}")
        domain = agent.get("/v1/connect/ca/roots")["TrustDomain"]
        clusters = [cluster for cluster in scene.mesh.ready().clusters.values() if cluster.host.endswith(".consul")]
        names = {name for cluster in clusters for peer in cluster.peers.values() for name in peer.names}
        assert names == {f"spiffe://{domain}/ns/default/dc/dc2/svc/{name}"}
