from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.places import PLACES, Place


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(lambda clock: PLACES[request.param](tmp_path, clock))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
