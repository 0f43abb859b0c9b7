"""A fleet moves from plain text to mTLS while it is called: servers first, then callers, then the mode is STRICT."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import meshlib
from tests.integration.workers.lanes import Load, Record
from tests.integration.workers.realm import LEDGER, Realm, put_in
from tests.support import eventually
from tests.support.servers import Fleet, Server

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
"""

CALLS = 60


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    started = Fleet(tmp_path, Path(__file__).parent / "apps")
    yield started
    started.end()


def replace(fleet: Fleet, realm: Realm, old: Server, process: str) -> Server:
    """Have another server with an identity in its place, as a rolling restart does."""
    new = realm.serve(fleet, process)
    fleet.wait_for("reviews", 3)
    assert old.stop() in {0, -15}
    fleet.wait_for("reviews", 2)
    return new


def processes(records: list[Record]) -> set[str]:
    return {record.connection.partition("-")[0] for record in records}


def is_refused(mesh: meshlib.Mesh) -> bool:
    with meshlib.Client(mesh=mesh) as client:
        try:
            client.get("http://reviews/")
        except meshlib.ConnectionBroken:
            return True
    return False


async def move(
    fleet: Fleet, realm: Realm, before: list[Server], old: meshlib.Mesh, new: meshlib.Mesh
) -> tuple[Load, Load]:
    """The calls of an old caller, which has no identity, and of a new one."""
    plain, secured = Load(old, 60.0), Load(new, 60.0)
    async with contextlib.AsyncExitStack() as stack:
        async with plain.on():
            await plain.further(CALLS)
            after = [await asyncio.to_thread(replace, fleet, realm, before[0], "reviews-1")]
            await stack.enter_async_context(secured.on())  # it finds one server of each kind
            await secured.further(CALLS)
            assert {record.peer for record in secured.records} == {None, Realm.id("web")}
            after.append(await asyncio.to_thread(replace, fleet, realm, before[1], "reviews-2"))
            seen = len(plain.records), len(secured.records)
            await plain.further(CALLS)
            await secured.further(CALLS)
        old_text, mtls = plain.records[seen[0] :], secured.records[seen[1] :]
        pids = {str(server.process.pid) for server in after}
        assert processes(old_text) & pids == processes(mtls) & pids == pids  # both kinds, on one port each
        await asyncio.to_thread(put_in, fleet, STRICT)
        await asyncio.to_thread(eventually, lambda: is_refused(old), 10.0)
        at = len(secured.records)
        await secured.further(CALLS)
        assert {record.peer for record in secured.records[at:]} == {Realm.id("web")}
    for server in after:
        assert "Traceback" not in server.written()
    return plain, secured


def test_a_fleet_moves_from_plain_text_to_mtls_and_no_call_fails(fleet: Fleet, tmp_path: Path) -> None:
    realm = Realm(tmp_path / "realm")
    before = [fleet.start("reviews", *LEDGER) for _ in range(2)]
    fleet.wait_for("reviews", 2)
    with fleet.mesh() as old, realm.mesh(fleet, "web") as new:
        plain, secured = asyncio.run(move(fleet, realm, before, old, new))
    print(f"{len(plain.records)} plain and {len(secured.records)} new calls")
    assert plain.errors == secured.errors == []
    assert {record.peer for record in plain.records} == {None}
