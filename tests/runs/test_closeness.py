from __future__ import annotations

import json
from dataclasses import dataclass

from stopctl import Every, NonFinite, OnBest, Patience, Run, StopPolicy, Target
from stopctl.rules import RemainingGain
from stopctl.runs.closeness import closeness
from stopctl.runs.standing import read_run
from support.ran import VALUES, ran


def test_rules_stand_as_the_run_itself_explains_them(tmp_path):
    stop = Patience(9) | NonFinite() | Target(0.01) | RemainingGain(0.01)
    save = Every(epochs=2) | OnBest(min_delta=0.01)
    with Run(tmp_path / "run", state={}, stop=stop, save=save, durability="process") as run:
        for epoch in run.epochs(50):
            run.report(val_loss=VALUES[epoch - 1])
            if epoch == len(VALUES):
                break
        own = run.explain().splitlines()[1:]
    assert closeness(read_run(tmp_path / "run")) == (own, [])


def test_a_rule_that_is_met_says_so(tmp_path):
    lines, notes = closeness(read_run(ran(tmp_path / "run")))
    assert lines[0] == "Patience(3): 3 of 3 reports without improvement over 0.3 (met)"
    assert lines[1] == "Every(epochs=2): due next at epoch 8"
    assert notes == []


def test_a_save_that_failed_is_not_counted(tmp_path):
    path = ran(tmp_path / "run", VALUES[:3], save=Every(epochs=2))
    lines = [line for line in (path / "journal.jsonl").read_text().splitlines() if '"saved"' not in line]
    (path / "journal.jsonl").write_text("".join(line + "\n" for line in lines))
    assert closeness(read_run(path))[0][1] == "Every(epochs=2): due next at epoch 2 (met)"


@dataclass(frozen=True, repr=False)
class Mine(StopPolicy):
    def met(self, memory, x, now):
        return False


def test_a_rule_of_ones_own_is_left_out_and_said(tmp_path):
    lines, notes = closeness(read_run(ran(tmp_path / "run", stop=Mine())))
    assert notes == ["stop Mine(): it has a rule of your own, which cannot be replayed here"]
    assert [line.split(":")[0] for line in lines] == ["Every(epochs=2)", "OnBest()"]


def test_reports_that_a_rule_cannot_judge_are_a_note(tmp_path):
    path = ran(tmp_path / "run")
    meta = json.loads((path / "run.json").read_text())
    meta["rules"]["stop"] = "Patience(3, goal=Maximize('accuracy'))"
    (path / "run.json").write_text(json.dumps(meta))
    lines, notes = closeness(read_run(path))
    assert lines == []
    assert "the journal cannot be replayed with these rules: the report has no 'accuracy'" in notes[0]
