"""What every registry promises, whatever it keeps its contents in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import msgspec
import pytest

from meshlib.errors import RegistryError
from meshlib.registries.base import MAX_DOCUMENT_BYTES, Instance, Registry, Update
from meshlib.resources import ResourceKey
from tests.contract.documents import entry
from tests.contract.places import Place

pytestmark = pytest.mark.anyio

PATIENCE = 10.0


@asynccontextmanager
async def opened(*registries: Registry) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for registry in registries:
            await registry.aclose()


async def until(registry: Registry, wanted: Callable[[Update], object]) -> Update:
    """The first update a fresh watch brings of which `wanted` is true."""
    async with asyncio.timeout(PATIENCE), aclosing(registry.watch()) as updates:
        async for update in updates:
            if isinstance(update, Update) and wanted(update):
                return update
    raise AssertionError("the watch ended")


def web(port: int = 8000, **more: object) -> Instance:
    return Instance("web", "127.0.0.1", port, **more)  # type: ignore[arg-type]


def ports(update: Update) -> list[int]:
    return [instance.port for instance in update.instances]


def texts(update: Update) -> str:
    return "\n".join(source.text.decode() for source in update.sources)


async def test_an_instance_is_seen_by_others_as_it_was_registered(place: Place) -> None:
    here, there = place.open(), place.open()
    async with opened(here, there):
        instance = web(weight=7, labels={"version": "v2", "equipe": "été ☀"}, locality="eu/a/1", namespace="shop")
        await here.register(instance)
        (seen,) = (await there.snapshot()).instances
        assert seen == msgspec.structs.replace(instance, id="127.0.0.1:8000")


async def test_the_first_item_comes_at_once(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        await registry.register(web())
        async with aclosing(registry.watch()) as updates:
            first = await asyncio.wait_for(anext(updates), PATIENCE)
        assert isinstance(first, Update)
        assert ports(first) == [8000]


async def test_a_watch_brings_registrations_and_withdrawals_made_elsewhere(place: Place) -> None:
    here, there = place.open(), place.open()
    async with opened(here, there), asyncio.timeout(PATIENCE):
        await here.register(web(1))
        async with aclosing(there.watch()) as updates:
            seen = [await anext(updates)]
            lease = await here.register(web(2))
            seen.append(await anext(updates))
            await lease.withdraw()
            seen.append(await anext(updates))
        assert [ports(update) for update in seen if isinstance(update, Update)] == [[1], [1, 2], [1]]


async def test_a_withdrawn_lease_stays_withdrawn_when_a_late_renewal_comes(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        await registry.register(web(1))
        lease = await registry.register(web(2))
        await lease.withdraw()
        await lease.renew()
        assert ports(await registry.snapshot()) == [1]


async def test_withdrawing_twice_does_no_harm(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        lease = await registry.register(web())
        await lease.withdraw()
        await lease.withdraw()
        assert ports(await registry.snapshot()) == []


async def test_a_lease_is_renewed_three_times_in_its_ttl(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        lease = await registry.register(web(), ttl=9.0)
        assert (lease.ttl, lease.interval) == (9.0, 3.0)


async def test_an_instance_that_stops_renewing_expires_while_others_go_on(place: Place) -> None:
    here, there = place.open(), place.open()
    async with opened(here, there):
        await here.register(web(1), ttl=place.ttl)
        alive = await there.register(web(2), ttl=place.ttl)
        for _ in range(2):
            await place.passes(3.0)
            await alive.renew()
        assert ports(await there.snapshot()) == [1, 2]
        for _ in range(2):
            await place.passes(3.0)
            await alive.renew()
        assert ports(await there.snapshot()) == [2]
        assert ports(await until(here, lambda update: True)) == [2]


async def test_nobody_expires_while_nobody_renews(place: Place) -> None:
    if place.keeps_time:
        pytest.skip("this registry has a clock of its own, and whoever can read it reads it as it is")
    registry = place.open()
    async with opened(registry):
        await registry.register(web(1))
        await registry.register(web(2))
        await place.passes(3600.0)
        assert ports(await registry.snapshot()) == [1, 2]


async def test_an_expired_instance_comes_back_with_its_next_renewal(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        late = await registry.register(web(1), ttl=place.ttl)
        alive = await registry.register(web(2), ttl=place.ttl)
        for _ in range(place.rounds):
            await place.passes(3.0)
            await alive.renew()
        assert ports(await registry.snapshot()) == [2]
        await late.renew()
        assert ports(await registry.snapshot()) == [1, 2]


async def test_the_workers_of_one_server_are_one_instance_until_the_last_is_gone(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        first = await registry.register(web(id="b", weight=2, healthy=False))
        second = await registry.register(web(id="a", weight=5))
        (merged,) = (await registry.snapshot()).instances
        assert (merged.id, merged.weight, merged.healthy) == ("127.0.0.1:8000", 5, True)
        await first.withdraw()
        assert len((await registry.snapshot()).instances) == 1
        await second.withdraw()
        assert (await registry.snapshot()).instances == ()


async def test_replacing_a_worker_changes_no_version(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        old = await registry.register(web(id="old"))
        before = await registry.snapshot()
        await registry.register(web(id="new"))
        await old.withdraw()
        assert (await registry.snapshot()).version == before.version


async def test_workers_that_contradict_each_other_are_warned_about(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        await registry.register(web(id="a", labels={"version": "v1"}))
        await registry.register(web(id="b", labels={"version": "v2"}))
        update = await registry.snapshot()
        assert update.instances[0].labels == {"version": "v1"}
        (warning,) = update.warnings
        assert "default/web at 127.0.0.1:8000" in warning


async def test_the_health_flag_is_seen_and_survives_renewal(place: Place) -> None:
    here, there = place.open(), place.open()
    async with opened(here, there):
        lease = await here.register(web())
        await lease.set_healthy(False)
        await lease.renew()
        assert [instance.healthy for instance in (await there.snapshot()).instances] == [False]
        await lease.set_healthy(True)
        assert lease.instance.healthy
        assert [instance.healthy for instance in (await there.snapshot()).instances] == [True]


async def test_the_version_changes_with_the_content_and_with_nothing_else(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        lease = await registry.register(web())
        await registry.apply([entry("one")])
        first = await registry.snapshot()
        await place.passes(1.0)
        await lease.renew()
        await registry.apply([entry("one")])
        assert (await registry.snapshot()).version == first.version
        await registry.apply([entry("one", "other.example")])
        assert (await registry.snapshot()).version != first.version


async def test_renewals_wake_no_watcher(place: Place) -> None:
    registry = place.open()
    async with opened(registry), asyncio.timeout(PATIENCE):
        lease = await registry.register(web(1))
        async with aclosing(registry.watch()) as updates:
            await anext(updates)
            following = asyncio.ensure_future(anext(updates))
            for _ in range(5):
                await place.passes(1.0)
                await lease.renew()
                await asyncio.sleep(0)
            await registry.register(web(2))
            update = await following
        assert isinstance(update, Update)
        assert ports(update) == [1, 2]


async def test_documents_applied_are_seen_elsewhere_and_replaced_by_name(place: Place) -> None:
    here, there = place.open(), place.open()
    async with opened(here, there):
        await here.apply([entry("one"), entry("two")])
        assert len((await until(there, lambda update: len(update.sources) == 2)).sources) == 2
        await here.apply([entry("one", "été.example")])
        update = await there.snapshot()
        assert len(update.sources) == 2
        assert "été.example" in texts(update)
        assert "one.example" not in texts(update)


async def test_deleting_says_what_was_there(place: Place) -> None:
    here, there = place.open(), place.open()
    async with opened(here, there):
        await here.apply([entry("one"), entry("two")])
        missing = ResourceKey("ServiceEntry", "default", "three")
        assert await there.delete([entry("one").key, missing]) == (entry("one").key,)
        assert await there.delete([entry("one").key]) == ()
        update = await here.snapshot()
        assert len(update.sources) == 1
        assert "two.example" in texts(update)


async def test_documents_of_one_apply_are_never_seen_half(place: Place) -> None:
    here, there = place.open(), place.open()
    names = [f"name-{number}" for number in range(20)]

    async def write(rounds: int) -> None:
        for number in range(rounds):
            await here.apply([entry(name, f"round-{number}.example") for name in names])
            await asyncio.sleep(0.03)

    async with opened(here, there), asyncio.timeout(PATIENCE):
        await here.apply([entry(name, "round-x.example") for name in names])
        writing = asyncio.ensure_future(write(10))
        async with aclosing(there.watch()) as updates:
            async for update in updates:
                assert isinstance(update, Update)
                rounds = {source.text.split(b"round-")[1][:1] for source in update.sources}
                assert (len(update.sources), len(rounds)) == (len(names), 1)
                if rounds == {b"9"}:
                    break
        await writing


async def test_a_document_too_large_is_refused_and_nothing_is_applied(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        await registry.apply([entry("small")])
        with pytest.raises(RegistryError, match="ServiceEntry/default/large"):
            await registry.apply([entry("beside"), entry("large", "x" * MAX_DOCUMENT_BYTES)])
        assert len((await registry.snapshot()).sources) == 1


async def test_applying_and_deleting_nothing_is_no_error(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        await registry.register(web())
        await registry.apply([])
        assert await registry.delete([]) == ()


async def test_two_watchers_of_one_registry_both_see_everything(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        await registry.register(web(1))

        def both(update: Update) -> bool:
            return ports(update) == [1, 2]

        watching = [asyncio.ensure_future(until(registry, both)) for _ in range(2)]
        await asyncio.sleep(0)
        await registry.register(web(2))
        first, second = await asyncio.gather(*watching)
        assert first == second


async def test_a_hundred_instances_come_in_the_order_of_their_names(place: Place) -> None:
    registry = place.open()
    async with opened(registry):
        for number in range(100, 0, -1):
            await registry.register(web(number))
        assert ports(await registry.snapshot()) == list(range(1, 101))
