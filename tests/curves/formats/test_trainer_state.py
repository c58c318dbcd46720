from __future__ import annotations

import json

import pytest

from stopctl.curves.recording import CurveError
from support.logs import points, read, write

LOG = [
    {"epoch": 0, "eval_loss": 9.0, "step": 0},
    {"epoch": 0.5, "loss": 4.6, "step": 50},
    {"epoch": 1.0, "eval_loss": 4.3, "eval_runtime": 11.0, "step": 100},
    {"epoch": 2.0, "eval_loss": 4.1, "step": 200},
    {"epoch": 3.0, "eval_loss": 4.2, "step": 300},
]


@pytest.mark.parametrize("indent", [None, 2])
def test_evaluations_stand_where_training_was_and_the_plan_is_known(tmp_path, indent):
    state = {"log_history": LOG, "max_steps": 500, "num_train_epochs": 5, "best_metric": None}
    (curve,) = read(write(tmp_path / "trainer_state.json", json.dumps(state, indent=indent))).curves
    assert points(curve) == [(0, 9.0), (1, 4.3), (2, 4.1), (3, 4.2)]
    assert (curve.unit, curve.reports[0].planned, curve.cut) == ("epoch", 5, "3 of 5 planned")
    assert [report.step for report in curve.reports] == [0, 100, 200, 300]


def test_evaluations_inside_epochs_count_steps(tmp_path):
    log = [{"epoch": i / 2, "eval_loss": 1 / i, "step": 10 * i} for i in (1, 2, 3)]
    (curve,) = read(write(tmp_path / "a.json", json.dumps({"log_history": log, "max_steps": 30}))).curves
    assert (curve.unit, points(curve), curve.cut) == ("step", [(10, 1.0), (20, 0.5), (30, 1 / 3)], "")


def test_of_a_folder_of_checkpoints_the_newest_has_the_log_of_all(tmp_path):
    for n in (2, 3, 10):
        log = [{"eval_loss": 5.0 - i, "step": i} for i in range(1, n + 1)]
        write(tmp_path / f"checkpoint-{n}" / "trainer_state.json", json.dumps({"log_history": log}))
    found = read(tmp_path)
    assert [len(curve.values) for curve in found.curves] == [10]
    assert found.notes == tuple(
        f"{tmp_path / f'checkpoint-{n}'}: left out, checkpoint-10 has all of its log" for n in (2, 3)
    )
    write(tmp_path / "trainer_state.json", json.dumps({"log_history": log}))
    assert [curve.name for curve in read(tmp_path).curves] == [str(tmp_path / "trainer_state.json")]


def test_a_file_that_is_none_is_refused_when_it_was_asked_for(tmp_path):
    with pytest.raises(CurveError, match=r"is no trainer_state.json: it has no list 'log_history'"):
        read(write(tmp_path / "a.json", '{"log_history": 3}'), format="trainer_state")
