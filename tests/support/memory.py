"""A folder in memory, where there is such a disk: for tests that make and remove thousands of trees."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK = Path("/dev/shm")


@contextmanager
def folder() -> Iterator[Path]:
    """A new one, gone at the end."""
    where = DISK if os.access(DISK, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where, prefix="stopctl-tests-") as made:
        yield Path(made)
