from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshlib import Mesh
from tests.support.inbound import Kind


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    """A pure client's: nothing is registered, and nothing is opened."""
    return Mesh("memory:", state_dir=tmp_path)


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: Any) -> Kind:
    """Each of the middlewares: what `tests.support.inbound.Side` is made for."""
    found: Kind = request.param
    return found
