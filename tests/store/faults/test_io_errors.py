"""Operation k fails, once or from then on, or writes half: a typed error, and all earlier checkpoints stay."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from support.faults.checks import CODES, WAYS, fail_everywhere
from support.faults.counts import count
from support.faults.stories import STORIES

QUICK = [name for name in STORIES if name != "saves_and_deletes"]
"""Without the one that is made of others."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", QUICK)
def test_an_operation_that_fails_loses_nothing(scratch: Path, name: str, way: str) -> None:
    """Every operation with EIO, and every 24th with each of the others: the store treats them alike."""
    injected = fail_everywhere(scratch, name, errno.EIO, way)
    for first, code in enumerate(CODES[1:]):
        injected += fail_everywhere(scratch, name, code, way, first=6 * first, every=24)
    assert injected > 0
    count("injected errors", injected)


@pytest.mark.slow
@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STORIES)
def test_every_operation_that_fails_with_every_code(scratch: Path, name: str, way: str, code: int) -> None:
    count("injected errors", fail_everywhere(scratch, name, code, way))
