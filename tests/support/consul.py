"""A real Consul for tests: agents and clusters on loopback, and the ways in which they end and come back.

The fixtures are in `tests/integration/consul/conftest.py`:

    def test_one(consul: ConsulAgent) -> None:         # shared by the tests of a worker process: use names of your own
        consul.put("/v1/agent/service/register", {"Name": "reviews-x7", "Port": 80})
        mesh = Mesh(registry=consul.url)               # consul://127.0.0.1:<port>

    def test_two(start_consul: StartConsul) -> None:   # agents of the test's own, ended with it
        agent = start_consul(acl=True)                 # ready: it has a leader, a CA, its tokens
        token = agent.new_token('service_prefix "" { policy = "read" }')
        agent.kill()                                   # SIGKILL; also terminate, leave, pause and resume
        agent.start()                                  # the same data and the same ports

    def test_three(start_cluster: StartCluster) -> None:
        cluster = start_cluster(servers=3, clients=1)
        cluster.leader().kill()
        cluster.leader()                               # the next one, once it is elected
        there = start_cluster(servers=1, datacenter="dc2", join_wan=[cluster])

`config` adds to an agent's configuration file: `config={"cert_file": …}` (HTTPS then listens on `agent.ports.https`),
`config={"addresses": {"http": "127.0.0.1 unix:///short/path.sock"}}`. What breaks the network is in
`tests.support.cut`.
"""

from __future__ import annotations

import atexit
import http.client
import json
import signal
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import eventually
from tests.support.consulsettings import merged_with, settings_of, version_of
from tests.support.parts import stopped
from tests.support.ports import LOOPBACK, PortBlock

__all__ = ["SHARED", "Answer", "ConsulAgent", "ConsulCluster", "Ports", "StartCluster", "StartConsul"]

STARTUP = 60.0  # seconds that a start or an election may take on a busy machine
SHUTDOWN = 20.0
ASKING = 10.0

SHARED: Mapping[str, Any] = {"limits": {"http_max_conns_per_client": 10_000}}
"""Configuration of an agent that many tests share.

Each leaves some ten blocking queries behind, whose connections the agent keeps for five minutes or until their answer
changes; by its default it takes no more than 200 from one address.
"""

_NO_ANSWER = (OSError, http.client.HTTPException, ValueError)


class Answer(NamedTuple):
    """What Consul answered to one request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def index(self) -> int:
        return int(self.headers.get("X-Consul-Index", 0))


class Ports(NamedTuple):
    """An agent's ports; Consul's own names for them."""

    http: int
    https: int
    server: int
    serf_lan: int
    serf_wan: int


class ConsulAgent:
    """One agent in a process of its own. What it writes is in `log`.

    Args:
        binary: the program.
        folder: for its configuration, data and log; made when it isn't there.
        name: the node's.
        servers: how many servers its datacenter waits for before the first election; 0: it is a client agent.
        datacenter: its name.
        primary: the datacenter whose CA and ACLs count, "": its own.
        token: the management token of its datacenter, "": no ACLs. With ACLs, what no token allows is denied.
        connect: Consul's CA is on.
        config: added to its configuration file, sections deeply.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        *,
        name: str = "consul",
        servers: int = 1,
        datacenter: str = "dc1",
        primary: str = "",
        token: str = "",
        connect: bool = True,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / "log"
        self.servers = servers
        self.datacenter = datacenter
        self.primary = primary or datacenter
        self.token = token
        self.connect = connect
        self.config = dict(config or {})
        self.join: Sequence[ConsulAgent] = ()
        """Agents of its datacenter; what is set here and in `config` counts from its next start."""
        self.join_wan: Sequence[ConsulAgent] = ()
        """Servers of other datacenters."""
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        self._block = PortBlock(len(Ports._fields))
        self.ports = Ports(*self._block.ports)
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        """`host:port` of its HTTP interface."""
        return f"{LOOPBACK}:{self.ports.http}"

    @property
    def url(self) -> str:
        """What `MESHLIB_REGISTRY` is for this agent."""
        return f"consul://{self.address}"

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def running(self) -> bool:
        """Its process is there, and not paused."""
        return self._process is not None and self._process.poll() is None and not self._paused

    def launch(self) -> None:
        """Start its process, with the data and the ports it had; don't wait for it."""
        assert self._process is None or self._process.poll() is not None, f"{self.name} runs already"
        file = self.folder / "agent.json"
        file.write_text(json.dumps(merged_with(settings_of(self, version_of(self._binary)), self.config), indent=2))
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [self._binary, "agent", "-config-file", file],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )
        self._paused = False
        atexit.register(self._process.kill)  # does nothing to a process that has been waited for

    def start(self) -> None:
        """Start its process, and wait until it answers for its datacenter."""
        self.launch()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait for a leader, for its node in the catalog, for the CA and for the management token."""
        try:
            eventually(self._is_ready, STARTUP)
        except AssertionError as late:
            raise AssertionError(f"{self.name} isn't ready: {late}\n{self.written()}") from None

    def _is_ready(self) -> bool:
        assert self._started().poll() is None, f"it ended with {self._started().returncode}"
        try:
            return bool(
                self._read("/v1/status/leader")
                and any(node["Node"] == self.name for node in self._read("/v1/catalog/nodes"))
                and (not self.connect or self._read("/v1/connect/ca/roots").get("ActiveRootID"))
                and (not self.token or self._read("/v1/acl/token/self"))
            )
        except _NO_ANSWER:
            return False

    def _read(self, path: str) -> Any:
        """Return the answer decoded; raise a ValueError when it is an error's text, which isn't JSON."""
        return self.request("GET", path).json()

    def kill(self) -> None:
        """SIGKILL: no farewell to anybody."""
        self._tell(signal.SIGKILL)
        self._wait()

    def terminate(self) -> None:
        """SIGTERM. By Consul's defaults a server ends as it is, and a client agent leaves its cluster first."""
        self._tell(signal.SIGTERM)
        self._wait()

    def leave(self) -> None:
        """Have it leave its cluster and end. Consul may keep the node of an agent that had only just started."""
        self.put("/v1/agent/leave")
        self._wait()

    def pause(self) -> None:
        """SIGSTOP: its sockets stay open, nothing answers."""
        stopped(self._started())
        self._paused = True

    def resume(self) -> None:
        """SIGCONT, after `pause`."""
        self._tell(signal.SIGCONT)
        self._paused = False

    def close(self) -> None:
        """End it if it runs, and give its ports back."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._block.close()

    def _tell(self, number: signal.Signals) -> None:
        self._started().send_signal(number)

    def _wait(self) -> None:
        process = self._started()
        try:
            process.wait(SHUTDOWN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.name} went on and on:\n{self.written()}") from None
        finally:
            atexit.unregister(process.kill)

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    def written(self) -> str:
        """The end of its log."""
        return self.log.read_text("utf-8", "replace")[-8000:]

    def request(
        self, method: str, path: str, body: object = None, *, token: str | None = None, timeout: float = ASKING
    ) -> Answer:
        """Ask its HTTP interface, whatever it answers.

        Args:
            method: GET, PUT, POST or DELETE.
            path: with its query, from `/v1`.
            body: bytes as they are, anything else as JSON; None: no body.
            token: instead of its management token; "": none.
            timeout: in seconds.
        """
        secret = self.token if token is None else token
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection(LOOPBACK, self.ports.http, timeout=timeout)
        try:
            connection.request(method, path, data, {"X-Consul-Token": secret} if secret else {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """Ask it; its answer decoded."""
        return self._good("GET", path, None).json()

    def put(self, path: str, body: object = None) -> Answer:
        """Tell it."""
        return self._good("PUT", path, body)

    def delete(self, path: str) -> Answer:
        """Have it delete something."""
        return self._good("DELETE", path, None)

    def _good(self, method: str, path: str, body: object) -> Answer:
        answer = self.request(method, path, body)
        assert answer.status == 200, f"{method} {path} of {self.name}: {answer.status} {answer.body[:500]!r}"
        return answer

    def new_token(self, rules: str) -> str:
        """Make a policy of `rules` and a token with it; the token's secret. Only with ACLs."""
        name = f"policy-{uuid.uuid4().hex}"
        self.put("/v1/acl/policy", {"Name": name, "Rules": rules})
        secret: str = self.put("/v1/acl/token", {"Policies": [{"Name": name}]}).json()["SecretID"]
        return secret


class ConsulCluster:
    """The agents of one datacenter: `servers` and `clients`.

    Args:
        binary: the program.
        folder: for the agents' folders.
        servers: how many servers.
        clients: how many client agents, the kind that runs beside a service.
        datacenter: its name; the agents are `<datacenter>-server-0`, `<datacenter>-client-0` and so on.
        join_wan: clusters of other datacenters; the first is the primary, whose CA and ACLs are the others' too.
        acl: ACLs are on, default deny; all agents share one management token.
        connect: Consul's CA is on.
        config: added to every agent's configuration file.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        *,
        servers: int = 3,
        clients: int = 0,
        datacenter: str = "dc1",
        join_wan: Sequence[ConsulCluster] = (),
        acl: bool = False,
        connect: bool = True,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.datacenter = datacenter
        self._others = join_wan
        if join_wan:
            self.token = join_wan[0].token
        else:
            self.token = str(uuid.uuid4()) if acl else ""

        def agent(kind: str, number: int) -> ConsulAgent:
            name = f"{datacenter}-{kind}-{number}"
            return ConsulAgent(
                binary,
                folder / name,
                name=name,
                servers=servers if kind == "server" else 0,
                datacenter=datacenter,
                primary=join_wan[0].datacenter if join_wan else "",
                token=self.token,
                connect=connect,
                config=config,
            )

        self.servers = [agent("server", number) for number in range(servers)]
        self.clients = [agent("client", number) for number in range(clients)]
        for each in self.agents:
            each.join = [server for server in self.servers if server is not each]
        for server in self.servers:
            server.join_wan = [there for cluster in join_wan for there in cluster.servers]

    @property
    def agents(self) -> list[ConsulAgent]:
        """All of them; the servers first."""
        return [*self.servers, *self.clients]

    def start(self) -> None:
        """Start those that don't run, all at once, and wait until each answers."""
        for agent in self.agents:
            if not agent.running:
                agent.launch()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until each agent answers, and the datacenters know each other."""
        for agent in self.agents:
            agent.wait_until_ready()
        eventually(self._is_federated, STARTUP)

    def _is_federated(self) -> bool:
        return all(self.datacenter in there.servers[0].get("/v1/catalog/datacenters") for there in self._others)

    def leader(self) -> ConsulAgent:
        """The server that leads; waits while one is being elected."""
        return eventually(self._leader, STARTUP)

    def followers(self) -> list[ConsulAgent]:
        """The other servers that run."""
        leader = self.leader()
        return [server for server in self.servers if server is not leader and server.running]

    def _leader(self) -> ConsulAgent | None:
        running = {f"{LOOPBACK}:{server.ports.server}": server for server in self.servers if server.running}
        named = {_leader_by(server) for server in running.values()}
        # As long as they don't agree, somebody still names the leader that was.
        return running.get(named.pop()) if len(named) == 1 else None

    def close(self) -> None:
        """End every agent."""
        for agent in self.agents:
            agent.close()


StartConsul = Callable[..., ConsulAgent]
"""Start a server that is a datacenter by itself; the arguments are `ConsulCluster`'s."""
StartCluster = Callable[..., ConsulCluster]
"""Start the agents of a datacenter; the arguments are `ConsulCluster`'s."""


def _leader_by(server: ConsulAgent) -> str:
    try:
        named: str = server.request("GET", "/v1/status/leader", timeout=1.0).json()
    except _NO_ANSWER:
        return ""
    return named
