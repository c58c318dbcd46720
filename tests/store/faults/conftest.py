from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.faults.counts import COUNTS

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What these run has its own tests elsewhere; measuring coverage would take longer than they do."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.no_cover)


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
