from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.places import PLACES, ConsulPlace, Place
from tests.support.consul import SHARED, ConsulAgent
from tests.support.parts import part


@pytest.fixture(scope="session")
def consul(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsulAgent | BaseException | None]:
    """An agent if a test is going to need one, or why there is none; it is there before any test's own sockets are."""
    if not any(_of_consul(item) for item in request.session.items):
        yield None
        return
    try:
        binary = part("consul")
    except (pytest.skip.Exception, pytest.fail.Exception) as reason:
        yield reason
        return
    agent = ConsulAgent(binary, tmp_path_factory.mktemp("consul"), config=SHARED)
    with contextlib.closing(agent):
        agent.start()
        yield agent


def _of_consul(item: pytest.Item) -> bool:
    return (
        isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and item.callspec.params.get("place") == "consul"
    )


@pytest.fixture(params=[*PLACES, pytest.param("consul", marks=pytest.mark.slow)])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, consul: ConsulAgent | BaseException | None
) -> Iterator[Place]:
    if request.param != "consul":
        yield Place(lambda clock: PLACES[request.param](tmp_path, clock))
        return
    if isinstance(consul, BaseException):
        raise consul
    assert consul is not None
    yield ConsulPlace(consul.url)
    for service in consul.get("/v1/agent/services"):
        consul.put(f"/v1/agent/service/deregister/{service}")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
