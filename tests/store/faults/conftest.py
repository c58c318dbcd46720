from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.faults.counts import COUNTS


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A new directory, in memory where there is any: these tests make and remove thousands of trees."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="stopctl-faults-") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def nothing_lost(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fails here has found a loss, or something that went unnoticed."""
    failed = request.session.testsfailed
    yield
    COUNTS["losses"] += request.session.testsfailed - failed
