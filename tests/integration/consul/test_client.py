"""The client of one agent keeps quiet in the log, begins afresh on another event loop, and waits for no trickle."""

from __future__ import annotations

import asyncio
import logging

import pytest

from meshlib.errors import RegistryError
from meshlib.registries.consul import client as client_module
from meshlib.registries.consul.address import consul_settings
from meshlib.registries.consul.client import AT_ONCE, ConsulClient
from tests.support.consul import ConsulAgent

LEADER = "/v1/status/leader"


def test_answers_are_no_lines_in_the_log_of_the_application(
    consul: ConsulAgent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def ask() -> bytes:
        client = ConsulClient(consul_settings(consul.url, {}))
        try:
            return (await client.get(LEADER)).data
        finally:
            await client.aclose()

    assert asyncio.run(ask())
    assert not caplog.records


def test_a_client_left_open_on_a_loop_that_ended_serves_on_the_next(consul: ConsulAgent) -> None:
    """So does one that a fork brought into a child: its loop is the parent's."""
    client = ConsulClient(consul_settings(consul.url, {}))

    async def crowd() -> list[bytes]:
        answers = await asyncio.gather(*(client.get(LEADER) for _ in range(2 * AT_ONCE)))
        return [answer.data for answer in answers]

    async def crowd_and_leave() -> None:
        await crowd()
        await client.aclose()

    before = asyncio.new_event_loop()
    try:
        # More than are let through at once, so that some have waited on this loop.
        before.run_until_complete(crowd())
        left = client._transport
        assert left is not None
        asyncio.run(crowd_and_leave())
        before.run_until_complete(left.aclose())
    finally:
        before.close()


def test_an_answer_that_has_begun_is_not_waited_for_as_a_change_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "BODY_WAIT", 0.3)

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nx-consul-index: 1\r\n\r\n")
        hung_up = asyncio.ensure_future(reader.read())
        while not hung_up.done():
            writer.write(b" ")
            await asyncio.wait([hung_up], timeout=0.05)
        writer.close()
        ended.set()

    ended = asyncio.Event()

    async def ask() -> str:
        server = await asyncio.start_server(trickle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = ConsulClient(consul_settings(f"consul://127.0.0.1:{port}", {}))
        try:
            async with asyncio.timeout(10):
                with pytest.raises(RegistryError) as caught:
                    await client.get("/v1/kv/meshlib/", index=1, wait=300)
        finally:
            await client.aclose()
            server.close()
        await ended.wait()
        return str(caught.value)

    assert "no whole answer" in asyncio.run(ask())
