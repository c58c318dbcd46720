from __future__ import annotations

import json

import pytest

from stopctl.curves.recording import CurveError
from support.logs import points, read, write

META = {"iteration_count": 5, "learn_metrics": [{"name": "Logloss"}], "test_metrics": [{"name": "Logloss"}]}


@pytest.mark.parametrize("deep", [True, False])
def test_iterations_count_from_zero_and_the_plan_is_known(tmp_path, deep):
    rows = [
        {
            "iteration": i,
            "learn": [0.5],
            "test": [[v]] if deep else [v],
            "passed_time": 2.0 * i,
            "remaining_time": 1,
        }
        for i, v in enumerate((0.7, 0.6, 0.65))
    ]
    path = write(tmp_path / "catboost_training.json", json.dumps({"meta": META, "iterations": rows}))
    (curve,) = read(path).curves
    assert (curve.goal.metric, curve.unit, points(curve)) == (
        "test/Logloss",
        "step",
        [(1, 0.7), (2, 0.6), (3, 0.65)],
    )
    assert [report.seconds for report in curve.reports] == [0, 2, 4]
    assert (curve.reports[0].planned, curve.cut) == (5, "3 of 5 planned")


def test_several_test_sets_are_columns_of_their_own(tmp_path):
    rows = [{"iteration": i, "learn": [0.5], "test": [[1.0 + i], [2.0 + i]]} for i in range(3)]
    path = write(tmp_path / "a.json", json.dumps({"meta": META, "iterations": rows}))
    assert read(path, column="test_1/Logloss").curves[0].values == (2, 3, 4)


def test_a_file_that_is_none_is_refused_when_it_was_asked_for(tmp_path):
    with pytest.raises(CurveError, match="is no catboost_training.json"):
        read(write(tmp_path / "a.json", '{"iterations": 3}'), format="catboost")
