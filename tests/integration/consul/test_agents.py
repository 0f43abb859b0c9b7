"""The agents that other tests break behave as Consul does."""

from __future__ import annotations

import pytest

from tests.support import eventually
from tests.support.consul import ConsulAgent, StartCluster, StartConsul


def test_an_agent_finds_what_was_registered(consul: ConsulAgent) -> None:
    consul.put("/v1/agent/service/register", {"Name": "agents-found", "Port": 80})
    eventually(lambda: consul.get("/v1/health/service/agents-found"))


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
