"""What a mirror refuses, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.mirrors.refusals import REFUSALS, refused


@pytest.mark.parametrize("name", REFUSALS)
def test_a_mirror_holds_to(scratch: Path, name: str):
    refused(scratch, name)
