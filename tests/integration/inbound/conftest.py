"""What the tests of this folder share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.parts import part
from tests.support.redis import RedisServer


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own; skips where none can be had."""
    with contextlib.closing(RedisServer(part("redis"), tmp_path)) as server:
        server.start()
        yield server
