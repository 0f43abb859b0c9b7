"""A mesh that is closed while something happens, and a registry that breaks its promises."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from meshlib import Mesh, RegistryError
from meshlib.agent.agent import Agent
from meshlib.agent.thread import LoopThread
from meshlib.plan.plan import Plan
from meshlib.registries.base import EMPTY, Instance, Lease, Update
from meshlib.testing.memory import MemoryRegistry
from tests.support import eventually, eventually_async


def reviews(port: int = 8001) -> Instance:
    return Instance(service="reviews", host="127.0.0.1", port=port)


def test_what_the_agent_of_before_publishes_is_passed_over(tmp_path: Path) -> None:
    mesh = Mesh(MemoryRegistry(), state_dir=tmp_path)
    mesh.open()
    assert mesh._agent is not None
    late, snapshot = mesh._agent.configuration, mesh._snapshot
    mesh.close()
    assert snapshot is not None
    late._publish(snapshot)
    assert mesh.plan is None


def test_a_registry_that_fails_to_close_keeps_no_thread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(MemoryRegistry):
        async def aclose(self) -> None:
            raise RuntimeError("stuck")

    before = threading.active_count()
    with Mesh(Stuck(), state_dir=tmp_path):
        pass
    assert threading.active_count() == before
    assert "didn't end in good order" in caplog.text


def test_a_registration_that_fails_in_an_unforeseen_way_is_seen_and_tried_again(tmp_path: Path) -> None:
    class Moody(MemoryRegistry):
        faults = 1

        async def register(self, instance: Instance, ttl: float = 10.0) -> Lease:
            if self.faults:
                self.faults -= 1
                raise OSError("no space")
            return await super().register(instance, ttl)

    with Mesh(Moody(), service="reviews", state_dir=tmp_path) as mesh:
        mesh.serve("127.0.0.1:8001")
        assert "no space" in eventually(lambda: mesh.status().registration_error)
        assert eventually(lambda: mesh.status().registered) == ("127.0.0.1:8001",)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_waiting_for_the_first_configuration_can_be_cancelled(tmp_path: Path, backend: str) -> None:
    class Mute(MemoryRegistry):
        async def watch(self) -> AsyncGenerator[Update | RegistryError, None]:
            await asyncio.sleep(3600)
            yield RegistryError(self.url, "mute")

    mesh = Mesh(Mute(), state_dir=tmp_path)

    async def main() -> None:
        with anyio.move_on_after(0.05) as scope:
            await mesh.aready()
        assert scope.cancelled_caught
        assert mesh.status().source == "none"
        assert mesh._agent is not None
        assert not mesh._agent.published.is_set()
        assert not mesh._agent.published._sleepers

    anyio.run(main, backend=backend)
    mesh.close()


def test_a_watch_that_fails_again_and_again_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshlib.agent.agent.RESTART_WAIT", 0.001)
    begun: list[None] = []

    class Broken(MemoryRegistry):
        async def watch(self) -> AsyncGenerator[Update | RegistryError, None]:
            begun.append(None)
            raise RuntimeError("broken")
            yield RegistryError(self.url, "never")

    with Mesh(Broken(), state_dir=tmp_path):
        eventually(lambda: len(begun) > 3)
    assert caplog.text.count("failed and is begun again") == 1
    assert caplog.text.count("no configuration yet") == 1


def test_a_mesh_closed_while_a_call_waits_for_it_is_opened_again_for_that_call(tmp_path: Path) -> None:
    class Slow(MemoryRegistry):
        watches = 0

        async def watch(self) -> AsyncGenerator[Update | RegistryError, None]:
            self.watches += 1
            if self.watches == 1:
                await asyncio.sleep(3600)
            async for said in super().watch():
                yield said

    registry = Slow()
    mesh = Mesh(registry, state_dir=tmp_path)
    plans: list[Plan] = []
    opening = threading.Thread(target=lambda: plans.append(mesh.ready()))
    opening.start()
    eventually(lambda: registry.watches == 1)
    mesh.close()
    opening.join(5.0)
    assert [plan.version for plan in plans] == [EMPTY.version]
    mesh.close()


def test_a_call_whose_mesh_is_closed_beside_it_asks_nobody_and_does_not_fail(tmp_path: Path) -> None:
    mesh = Mesh(MemoryRegistry(), state_dir=tmp_path).open()
    agent = mesh._agent
    assert agent is not None
    mesh.close()
    agent.want(["reviews.default.svc.cluster.local"])


def test_first_calls_wait_to_one_moment_and_not_each_its_own_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mute(MemoryRegistry):
        async def watch(self) -> AsyncGenerator[Update | RegistryError, None]:
            await asyncio.sleep(3600)
            yield RegistryError(self.url, "mute")

    monkeypatch.setattr("meshlib.running.OPEN_WAIT", 1.0)
    mesh = Mesh(Mute(), state_dir=tmp_path)

    async def main() -> None:
        crowd = asyncio.gather(*(mesh.aready() for _ in range(100)))
        # More than there are threads to wait in.
        await eventually_async(lambda: mesh._agent is not None and len(mesh._agent.published._sleepers) > 40)
        assert {plan.version for plan in await crowd} == {"none"}
        began = time.monotonic()
        await mesh.aready()
        assert time.monotonic() - began < 1.0

    asyncio.run(main())
    mesh.close()


def test_a_mesh_closed_beside_a_withdrawal_lets_it_come_to_its_end(tmp_path: Path) -> None:
    seen: list[str] = []
    asked, may_go_on = threading.Event(), threading.Event()

    class Slow(MemoryRegistry):
        async def _remove(self, instance: Instance) -> None:
            seen.append("asked to remove")
            asked.set()
            await asyncio.to_thread(may_go_on.wait, 5.0)
            await super()._remove(instance)
            seen.append("removed")

        async def aclose(self) -> None:
            seen.append("closed")

    mesh = Mesh(Slow(), service="reviews", state_dir=tmp_path)
    mesh.serve("127.0.0.1:8001")
    eventually(lambda: mesh.status().registered)
    with ThreadPoolExecutor(2) as threads:
        withdrawn = threads.submit(mesh.withdraw)
        assert asked.wait(5.0)
        closed = threads.submit(mesh.close)
        concurrent.futures.wait([closed], 0.2)  # all the time it would take
        may_go_on.set()
        withdrawn.result(5.0)
        closed.result(5.0)
    assert seen == ["asked to remove", "removed", "closed"]


def test_withdrawing_takes_hold_of_an_agent_that_is_not_being_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = Mesh(MemoryRegistry(), service="reviews", state_dir=tmp_path)
    mesh.serve("127.0.0.1:8001")
    eventually(lambda: mesh.status().registered)
    withdraw, closings = Agent.withdraw, ThreadPoolExecutor(1)

    def late(agent: Agent) -> concurrent.futures.Future[None]:
        concurrent.futures.wait([closings.submit(mesh.close)], 0.2)  # all the time it would take
        return withdraw(agent)

    monkeypatch.setattr(Agent, "withdraw", late)
    with closings:
        mesh.withdraw()
    assert mesh._agent is None


def test_a_thread_that_was_told_to_stop_takes_no_more_work() -> None:
    thread, busy, may_end = LoopThread("meshlib-test"), threading.Event(), threading.Event()

    async def hold() -> None:
        busy.set()
        may_end.wait(5.0)

    async def more() -> None:
        """Would never be awaited, which is a warning, and so an error here."""

    thread.submit(hold())
    assert busy.wait(5.0)
    thread.stop(0.0)
    with pytest.raises(RuntimeError, match="told to stop"):
        thread.submit(more())
    may_end.set()
    thread.stop(5.0)
