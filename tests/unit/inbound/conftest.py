from __future__ import annotations

from pathlib import Path

import pytest

from meshlib import Mesh


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    """A pure client's: nothing is registered, and nothing is opened."""
    return Mesh("memory:", state_dir=tmp_path)
