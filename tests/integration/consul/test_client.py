"""The client of one agent keeps quiet in the application's log, and begins afresh on another event loop."""

from __future__ import annotations

import asyncio
import logging

import pytest

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
