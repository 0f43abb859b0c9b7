"""Consistent hashing through real clients and sockets: calls alike stay with one server."""

from __future__ import annotations

import socket

from meshlib.policy.hashing import hash_of
from meshlib.resources import Source, load
from tests.both.conftest import Caller, World, at_once
from tests.both.servers import Web, answer

USERS = [f"user-{number}" for number in range(12)]


def servers(world: World, count: int = 4) -> list[Web]:
    return [world.serve("reviews", answer(str(number).encode())) for number in range(count)]


def test_calls_of_one_user_stay_with_one_server_and_only_the_keys_of_a_dead_one_move(world: World) -> None:
    world.traffic("loadBalancer: {consistentHash: {httpHeaderName: x-user, maglev: {}}}")
    webs = servers(world)

    async def scenario(client: Caller) -> None:
        async def homes() -> dict[str, str]:
            return {user: (await client.get("http://reviews/", headers={"x-user": user})).text for user in USERS}

        before = await homes()
        assert await homes() == before
        assert len(set(before.values())) > 1
        dead = before[USERS[0]]
        webs[int(dead)].stop()
        after = await homes()
        assert dead not in after.values()
        assert all(after[user] == home for user, home in before.items() if home != dead)

    world.run(scenario)


def test_a_session_sticks_by_a_cookie_that_the_mesh_makes_and_the_client_keeps(world: World) -> None:
    world.traffic("loadBalancer: {consistentHash: {httpCookie: {name: sid, path: /, ttl: 0s}}}")
    webs = servers(world)

    async def scenario(client: Caller) -> None:
        first = await client.get("http://reviews/")
        value = client.client.cookies["sid"]
        assert first.headers["set-cookie"] == f"sid={value}; Path=/; HttpOnly"
        for _ in range(6):
            reply = await client.get("http://reviews/")
            assert reply.text == first.text
            assert "set-cookie" not in reply.headers
        webs[int(first.text)].stop()
        moved = {(await client.get("http://reviews/")).text for _ in range(4)}
        assert len(moved) == 1
        assert moved != {first.text}
        assert client.client.cookies["sid"] == value

    world.run(scenario)


def test_by_its_source_all_calls_of_a_process_go_to_one_server(world: World) -> None:
    hashing = "{useSourceIp: true, maglev: {}}"
    text = f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: traffic}}
spec: {{host: reviews, trafficPolicy: {{loadBalancer: {{consistentHash: {hashing}}}}}}}
"""
    loaded = load([Source("test.yaml", text.encode())])
    [note] = loaded.notes
    assert (note.path, note.status) == ("spec.trafficPolicy.loadBalancer.consistentHash.useSourceIp", "approximated")
    at_once(world.registry.apply(loaded.resources))
    webs = servers(world)

    async def scenario(client: Caller) -> None:
        assert len({(await client.get("http://reviews/")).text for _ in range(8)}) == 1
        plan = world.mesh.plan
        assert plan is not None
        [cluster] = plan.clusters.values()
        home = cluster.picker.pick(0.0, (), hash_of(socket.gethostname().encode()))
        assert home is not None
        assert [web.port for web in webs if web.seen] == [home.port]

    world.run(scenario)


def test_without_the_header_a_call_goes_anywhere_and_gets_no_cookie(world: World) -> None:
    world.traffic("loadBalancer: {consistentHash: {httpHeaderName: x-user}}")
    servers(world, 2)

    async def scenario(client: Caller) -> None:
        replies = [await client.get("http://reviews/") for _ in range(40)]
        assert {reply.text for reply in replies} == {"0", "1"}
        assert not any("set-cookie" in reply.headers for reply in replies)

    world.run(scenario)
