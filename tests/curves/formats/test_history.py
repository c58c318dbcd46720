from __future__ import annotations

import json

import pytest

from stopctl.curves.recording import CurveError
from support.logs import points, read, write


def one(path, lists, **asked):
    (curve,) = read(write(path, json.dumps(lists)), **asked).curves
    return curve


def test_keras_history_with_and_without_its_params(tmp_path):
    lists = {"loss": [3, 2, 1], "val_loss": [3.5, 2.5, 2.75]}
    for told in (lists, {"params": {"epochs": 3}, "epoch": [0, 1, 2], "history": lists}):
        assert points(one(tmp_path / "h.json", told)) == [(1, 3.5), (2, 2.5), (3, 2.75)]


def test_xgboost_and_lightgbm_name_the_data_first(tmp_path):
    evals = {"train": {"rmse": [3, 2, 1]}, "eval": {"rmse": [3.5, 3.0, 3.25]}}
    curve = one(tmp_path / "evals.json", evals)
    assert (curve.goal.metric, points(curve)) == ("eval/rmse", [(1, 3.5), (2, 3.0), (3, 3.25)])


def test_a_metric_of_every_second_epoch_stands_there(tmp_path):
    curve = one(tmp_path / "h.json", {"loss": [6, 5, 4, 3, 2, 1], "val_loss": [3, 2, 1]})
    assert points(curve) == [(2, 3), (4, 2), (6, 1)]
    with pytest.raises(CurveError, match="'val_loss' has 2 values, others 3: it cannot be said which row"):
        one(tmp_path / "h.json", {"loss": [3, 2, 1], "val_loss": [1, 2]})


def test_other_json_is_no_history(tmp_path):
    with pytest.raises(CurveError, match="is no history: write a JSON object with a list for each metric"):
        read(write(tmp_path / "a.json", '{"loss": 3}'), format="history")
