from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import memory
from support.faults.counts import nothing_lost  # noqa: F401  # a fixture


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A new directory: these tests make and remove thousands of trees."""
    with memory.folder() as folder:
        yield folder
