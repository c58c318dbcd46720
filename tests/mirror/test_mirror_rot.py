"""Objects that rot, are cut, swapped or gone: named, and the older checkpoint is used, or an error says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.faults.counts import count
from support.mirrors.rot import ROT


@pytest.mark.parametrize("kind", ROT)
def test_what_is_damaged_is_noticed(scratch: Path, kind: str):
    count(kind, ROT[kind](scratch))
