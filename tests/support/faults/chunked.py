"""The store with chunks of a few bytes, so that small files have many of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from stopctl.store import assembly, chunks, files, hashed
from support.faults import stories

CHUNK = 96
STORIES = ("saves", "saves_together")
"""Those that are told so."""


@contextlib.contextmanager
def small_chunks() -> Iterator[None]:
    """What is written in the block is read in it: the size of a chunk belongs to the format."""
    stories._before.cache_clear()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for module in (hashed, chunks, assembly):
                patch.setattr(module, "CHUNK", CHUNK)
            for module in (hashed, files):
                patch.setattr(module, "STEP", CHUNK)
            patch.setattr(hashed, "SMALL", CHUNK // 4)
            yield
    finally:
        stories._before.cache_clear()
