from __future__ import annotations

import json

from stopctl import Every, Run
from support.ran import files_of, ran


def test_each_decision_is_a_sentence(tmp_path, stopctl):
    path = ran(tmp_path / "run")
    before = files_of(path)
    code, out, _ = stopctl("explain", path)
    assert (code, files_of(path)) == (0, before)
    lines = out.splitlines()
    assert "epoch 3, step 30: val_loss 0.3; new best" in lines
    assert "epoch 4, step 40: saved epoch-0004-step-000000040-w0001: every 2 epochs" in lines
    assert "epoch 6, step 60: val_loss 0.6; stop: no improvement over 0.3 for 3 reports" in lines
    assert not any(line.startswith("epoch 5") for line in lines)


def test_one_epoch_or_step_is_told_even_if_nothing_was_decided(tmp_path, stopctl):
    path = ran(tmp_path / "run")
    assert (
        stopctl("explain", path, "--epoch", 5)[1] == "epoch 5, step 50: val_loss 0.45; nothing was decided\n"
    )
    assert (
        stopctl("explain", path, "--step", 50)[1] == "epoch 5, step 50: val_loss 0.45; nothing was decided\n"
    )
    code, out, err = stopctl("explain", path, "--epoch", 9)
    assert (code, out) == (2, "")
    assert "epoch 9 is not in the journal, which has epochs 0 to 6" in err


def test_what_was_voided_is_shown_on_request(tmp_path, stopctl):
    path = ran(tmp_path / "run", (0.5, 0.4, 0.39), stop=None, save=Every(epochs=2))
    with Run(path, state={"weight": 0.0}, stop=None, save=Every(epochs=2), durability="process") as run:
        for _ in run.epochs(3):
            run.report(val_loss=0.1)
    assert "0.39" not in stopctl("explain", path)[1]
    out = stopctl("explain", path, "--voided")[1]
    assert "val_loss 0.39; new best (voided by a resume)" in out
    told = json.loads(stopctl("explain", path, "--voided", "--epoch", "3", "--json")[1])
    assert [one["voided"] for one in told["moments"] if one["event"] == "report"] == [True, False]


def test_a_run_that_decided_nothing_says_so(tmp_path, stopctl):
    path = ran(tmp_path / "run")
    (path / "journal.jsonl").write_text('{"event": "re\n')
    _, out, _ = stopctl("explain", path)
    assert out == "nothing was decided yet\n1 half-written or garbled line was skipped\n"
