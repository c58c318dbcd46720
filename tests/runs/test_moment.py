from __future__ import annotations

import pytest

from stopctl.runs.moment import Place, moments, seconds, value_in


@pytest.mark.parametrize("value", [None, "NaN", "Infinity", "1 s"])
def test_seconds_that_are_none_count_as_0(value):
    assert seconds({"seconds": value}) == 0.0
    assert seconds({"seconds": 2}) == 2.0


def test_a_line_of_a_writer_that_was_taken_over_is_no_moment_and_the_newest_writer_is_told():
    line = {"event": "report", "epoch": 1, "step": 0, "metrics": {"val_loss": 0.5}}
    found, writer = moments([{**line, "writer": 2}, {**line, "writer": 1}, line], "val_loss", 1)
    assert ([one.place for one in found], writer) == ([Place(1, 0)] * 2, 2)
    assert moments([{**line, "writer": 1}], "val_loss", 2) == ([], 2)


def test_a_value_of_its_own_counts_before_the_metric():
    assert value_in({"metrics": {"val_loss": 0.5}}, "val_loss") == 0.5
    assert value_in({"metrics": {"val_loss": 0.5}, "value": 0.25}, "val_loss") == 0.25
    assert value_in({"metrics": {"val_loss": 0.5}, "value": None}, "val_loss") is None
