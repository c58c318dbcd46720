from __future__ import annotations

import json

from stopctl import Every, Run
from stopctl.store import Reader, manual
from support.ran import files_of, ran


def labels(path):
    return [info.epoch for info in Reader(path).list().good]


def test_nothing_is_changed_without_yes(tmp_path, stopctl):
    path = ran(tmp_path / "run", keep=None)
    before = files_of(path)
    code, out, _ = stopctl("prune", path, "--keep", "Last(2) | Best(1)")
    assert (code, files_of(path)) == (0, before)
    assert "delete  epoch-0001-step-000000010-w0001" in out
    assert "keep    epoch-0003-step-000000030-w0001" in out
    assert "would delete 2 of 5 checkpoints" in out
    assert "--yes deletes them" in out


def test_yes_deletes_what_the_rule_does_not_keep_and_the_run_resumes(tmp_path, stopctl):
    path = ran(tmp_path / "run", keep=None)
    manual.pin(path, "epoch-0002-step-000000020-w0001")
    code, out, _ = stopctl("prune", path, "--keep", "Last(1)", "--yes")
    assert code == 0
    assert "deleted 2 of 5 checkpoints" in out
    assert labels(path) == [2, 3, 6]  # pinned, best, newest
    with Run(
        path, state={"weight": 0.0}, stop=None, save=Every(epochs=1), keep=None, durability="process"
    ) as run:
        assert run.resumed.epoch == 6


def test_json_says_what_goes_and_what_stays(tmp_path, stopctl):
    path = ran(tmp_path / "run", keep=None)
    told = json.loads(stopctl("prune", path, "--keep", "Best(2)", "--json")[1])
    assert (told["deleted"], told["keep"], len(told["doomed"]), len(told["kept"])) == (False, "Best(2)", 2, 3)
    told = json.loads(stopctl("prune", path, "--keep", "Best(2)", "--json", "--yes")[1])
    assert (told["deleted"], len(told["doomed"])) == (True, 2)
    told = json.loads(stopctl("prune", path, "--keep", "Best(2)", "--json", "--yes")[1])
    assert told["doomed"] == []


def test_a_run_in_use_is_only_looked_at(tmp_path, stopctl):
    with Run(tmp_path / "run", state={}, durability="process", keep=None) as run:
        for _ in run.epochs(4):
            run.report(val_loss=0.5)
        assert stopctl("prune", tmp_path / "run", "--keep", "Last(1)")[0] == 0
        code, _, err = stopctl("prune", tmp_path / "run", "--keep", "Last(1)", "--yes")
        assert code == 2
        assert "is open in this process already" in err
        assert len(run.checkpoints) == 4


def test_a_rule_that_cannot_be_read_is_one_line(tmp_path, stopctl):
    code, _, err = stopctl("prune", ran(tmp_path / "run"), "--keep", "Lst(1)")
    assert code == 2
    assert err.startswith("stopctl: 'Lst(1)', column 1: there is no 'Lst'; did you mean Last?")
