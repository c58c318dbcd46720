"""The benchmark of the mirror: what is on its clock, and that all is as before afterwards."""

from __future__ import annotations

import mirror
from stopctl.run.uploader import Uploader


def test_a_loop_with_a_mirror_and_one_without_are_measured(tmp_path):
    before = [getattr(Uploader, name) for name in mirror.CALLS]
    without, there = (mirror.measure(2, 1e-4, 8000, tmp_path / str(on), on) for on in (False, True))
    assert without.mirror == 0.0 < there.mirror < there.loop
    assert [getattr(Uploader, name) for name in mirror.CALLS] == before
