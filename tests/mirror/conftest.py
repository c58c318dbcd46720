from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import memory
from support.faults.counts import nothing_lost  # noqa: F401  # a fixture


@pytest.fixture(scope="session")
def shelf() -> Iterator[Path]:
    """Where checkpoints are made once."""
    with memory.folder() as folder:
        yield folder


@pytest.fixture
def scratch(shelf: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=shelf) as folder:
        yield Path(folder)
