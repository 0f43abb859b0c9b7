"""The agents that other tests break behave as Consul does."""

from __future__ import annotations

import http.client
import socket
import ssl
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import trustme

from tests.support import eventually
from tests.support.consul import ConsulAgent, StartCluster, StartConsul
from tests.support.ports import LOOPBACK


def test_an_agent_finds_what_was_registered(consul: ConsulAgent) -> None:
    consul.put("/v1/agent/service/register", {"Name": "agents-found", "Port": 80})
    eventually(lambda: consul.get("/v1/health/service/agents-found"))


def test_the_shared_agent_has_connections_for_all_that_its_tests_leave_behind(consul: ConsulAgent) -> None:
    with ExitStack() as stack:
        for _ in range(250):
            stack.enter_context(socket.create_connection((LOOPBACK, consul.ports.http), timeout=10.0))
        assert consul.get("/v1/status/leader")


def test_what_was_written_survives_a_kill(start_consul: StartConsul) -> None:
    agent = start_consul()
    ports = agent.ports
    agent.put("/v1/kv/kept", b"yes")
    agent.kill()
    assert not agent.running
    with pytest.raises(ConnectionRefusedError):
        agent.get("/v1/status/leader")
    agent.start()
    assert agent.ports == ports
    assert agent.get("/v1/kv/kept")[0]["Value"] == "eWVz"


def test_a_paused_agent_answers_once_it_is_resumed(start_consul: StartConsul) -> None:
    agent = start_consul()
    agent.pause()
    with pytest.raises(TimeoutError):
        agent.request("GET", "/v1/status/leader", timeout=0.2)
    agent.resume()
    agent.wait_until_ready()


def test_acls_deny_what_no_token_allows(start_consul: StartConsul) -> None:
    agent = start_consul(acl=True)
    reader = agent.new_token('key_prefix "meshlib/" { policy = "read" }')
    agent.put("/v1/kv/meshlib/a", b"1")
    assert agent.request("GET", "/v1/kv/meshlib/a", token="").status == 403
    assert agent.request("GET", "/v1/kv/meshlib/a", token=reader).status == 200
    assert agent.request("PUT", "/v1/kv/meshlib/a", b"2", token=reader).status == 403


def test_another_server_leads_when_the_leader_is_killed(start_cluster: StartCluster) -> None:
    cluster = start_cluster(servers=3, clients=1)
    first = cluster.leader()
    client = cluster.clients[0]
    client.put("/v1/kv/before", b"1")
    first.kill()
    second = cluster.leader()
    assert second is not first
    eventually(lambda: client.request("PUT", "/v1/kv/after", b"1").status == 200, 30.0)
    first.start()
    assert [entry["Value"] for entry in first.get("/v1/kv/after?consistent")] == ["MQ=="]
    assert len(cluster.followers()) == 2


def test_datacenters_answer_for_each_other_and_share_a_trust_domain(start_cluster: StartCluster) -> None:
    here = start_cluster(servers=1)
    there = start_cluster(servers=1, datacenter="dc2", join_wan=[here])
    there.servers[0].put("/v1/agent/service/register", {"Name": "reviews", "Port": 80})
    agent = here.servers[0]
    eventually(lambda: agent.request("GET", "/v1/health/service/reviews?dc=dc2").json(), 30.0)
    roots = "/v1/connect/ca/roots"
    assert agent.get(roots)["TrustDomain"] == there.servers[0].get(roots)["TrustDomain"]


def test_a_cluster_whose_servers_were_all_killed_comes_back_with_what_it_had(start_cluster: StartCluster) -> None:
    cluster = start_cluster(servers=3, clients=1, acl=True)
    client = cluster.clients[0]
    client.put("/v1/kv/kept", b"1")
    for server in cluster.servers:
        server.kill()
    assert client.request("GET", "/v1/kv/kept").status == 500  # the client agent runs on, and has nobody to ask
    cluster.start()
    assert [entry["Value"] for entry in client.get("/v1/kv/kept")] == ["MQ=="]


def test_a_paused_leader_is_replaced(start_cluster: StartCluster) -> None:
    cluster = start_cluster(servers=3)
    first = cluster.leader()
    first.pause()
    second = cluster.leader()
    assert second is not first
    second.put("/v1/kv/meanwhile", b"1")
    first.resume()
    first.wait_until_ready()
    assert first.get("/v1/kv/meanwhile?consistent")


def test_who_leaves_has_left_and_who_is_killed_has_failed(start_cluster: StartCluster) -> None:
    cluster = start_cluster(servers=1, clients=2)
    server, (polite, killed) = cluster.servers[0], cluster.clients
    polite.leave()
    killed.kill()
    left, failed = 3, 4  # serf's numbers
    expected = {server.name: 1, polite.name: left, killed.name: failed}
    eventually(lambda: {each["Name"]: each["Status"] for each in server.get("/v1/agent/members")} == expected, 30.0)
    eventually(lambda: server.get(f"/v1/health/node/{killed.name}")[0]["Status"] == "critical", 30.0)


def test_datacenters_share_their_tokens(start_cluster: StartCluster) -> None:
    here = start_cluster(servers=1, acl=True)
    there = start_cluster(servers=1, clients=1, datacenter="dc2", join_wan=[here])
    token = here.servers[0].new_token('key_prefix "" { policy = "read" }')
    client = there.clients[0]
    client.put("/v1/kv/there", b"1")
    eventually(lambda: client.request("GET", "/v1/kv/there", token=token).status == 200, 30.0)
    assert client.request("PUT", "/v1/kv/there", b"2", token=token).status == 403
    assert client.request("GET", "/v1/kv/there", token="").status == 403


def test_an_agent_answers_on_https_and_on_a_unix_socket_when_it_is_configured(start_consul: StartConsul) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:  # the path of a socket must be short
        files = Path(folder)
        certificate.private_key_pem.write_to_path(files / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(files / "cert.pem")
        config = {
            "addresses": {"http": f"127.0.0.1 unix://{files / 'http.sock'}"},
            "cert_file": str(files / "cert.pem"),
            "key_file": str(files / "key.pem"),
        }
        agent = start_consul(config=config)
        with socket.socket(socket.AF_UNIX) as plain:
            plain.connect(str(files / "http.sock"))
            plain.sendall(b"GET /v1/status/leader HTTP/1.0\r\n\r\n")
            assert plain.recv(100).startswith(b"HTTP/1.0 200")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with closing(http.client.HTTPSConnection(LOOPBACK, agent.ports.https, context=context)) as secured:
            secured.request("GET", "/v1/status/leader")
            assert secured.getresponse().status == 200
        agent.close()
