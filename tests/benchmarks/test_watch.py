"""The benchmark of the watch: what is on its clocks, and that all is as before afterwards."""

from __future__ import annotations

import watch
from training_overhead import Clock

from stopctl_torch.marks import Marks
from stopctl_torch.watch import Watch


def test_a_loop_is_measured_and_its_search_by_itself(tmp_path):
    cost = watch.measure(20, 1e-4, 6, tmp_path)
    assert cost.work >= 20 * 1e-4
    assert cost.search > 0


def test_the_clocks_are_taken_off_again():
    before = [Watch.stepped, Watch.passed, Watch._scan, Marks.mark, Marks.moved]
    with watch.clocks(Clock(), Clock()):
        assert Marks.mark is not before[3]
    assert [Watch.stepped, Watch.passed, Watch._scan, Marks.mark, Marks.moved] == before
