from __future__ import annotations

import pytest

from stopctl.curves.recording import CurveError
from support.logs import points, read, write

CHART = (
    '"Step","a - val/loss","a - val/loss__MIN","b-2 - x - val/loss","b-2 - x - val/loss__MAX"\n'
    '"0","3","3","",""\n"10","2","2","5","5"\n"20","1","1","4","4"\n"30","","","4.5","4.5"\n'
)


def test_every_run_of_a_chart_is_a_curve(tmp_path):
    path = write(tmp_path / "chart.csv", CHART)
    first, second = read(path).curves
    assert (first.name, points(first)) == (f"{path} [a]", [(10, 3), (20, 2), (30, 1)])  # from zero, 10 apart
    assert (second.name, points(second)) == (f"{path} [b-2 - x]", [(10, 5), (20, 4), (30, 4.5)])


def test_an_axis_of_another_name_is_taken_as_steps_and_said(tmp_path):
    path = write(tmp_path / "chart.csv", CHART.replace('"Step"', '"samples"').replace('"0","3"', '"5","3"'))
    found = read(path)
    assert points(found.curves[0]) == [(5, 3), (10, 2), (20, 1)]
    assert found.notes[0] == f"{path} [a]: 'samples', the axis, is taken as steps"


def test_another_table_is_no_chart(tmp_path):
    with pytest.raises(CurveError, match="is no chart of Weights & Biases: no column is 'run - metric'"):
        read(write(tmp_path / "a.csv", "a,b\nx,2\n"), format="wandb_chart")
