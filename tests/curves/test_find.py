from __future__ import annotations

import pytest

from stopctl import After, NonFinite, Patience, Run
from stopctl.curves.find import read_run
from stopctl.curves.replay import replay
from stopctl.rules import RemainingGain
from support.given import Given
from support.logs import our_run, read


def test_parts_that_a_resume_voided_are_left_out(tmp_path):
    from stopctl import Every

    def train(values, start):
        with Run(
            tmp_path / "r",
            state=Given({"m": {"w": 1}}),
            stop=None,
            save=Every(epochs=2),
            durability="process",
        ) as run:
            for epoch in run.epochs(5):
                if epoch - start >= len(values):
                    raise KeyError("killed")
                run.report(val_loss=values[epoch - start])

    with pytest.raises(KeyError):
        train([5.0, 4.0, 99.0], 1)
    assert read_run(tmp_path / "r").cut == "not ended"
    train([3.0, 2.0, 1.0], 3)  # the newest checkpoint is that of epoch 2
    log = read_run(tmp_path / "r")
    assert [(row.epoch, row.metrics["val_loss"]) for row in log.rows] == [
        (1, 5.0), (2, 4.0), (3, 3.0), (4, 2.0), (5, 1.0),
    ]  # fmt: skip
    assert (log.metric, log.mode, log.cut, log.told) == ("val_loss", "min", "", True)
    assert len(log.saves) == 3


@pytest.mark.parametrize(
    ("stop", "values", "cut"),
    [
        (Patience(1), [1.0, 2.0, 3.0], "stopped by patience"),
        (After(epochs=2), [1.0, 2.0, 3.0], ""),
        (NonFinite(), [1.0, float("nan"), 3.0], ""),
        (None, [1.0, 2.0, 3.0], ""),
    ],
)
def test_a_budget_is_a_planned_end_and_a_rule_is_a_cut(tmp_path, stop, values, cut):
    assert read_run(our_run(tmp_path, "r", "val_loss", values, stop=stop)).cut == cut


def test_a_half_written_journal_line_is_skipped_and_counted(tmp_path):
    path = our_run(tmp_path, "r", "val_loss", [1.0, 2.0, 3.0])
    journal = path / "journal.jsonl"
    first, *others = journal.read_text().splitlines()
    journal.write_text("\n".join([first, '{"event": "rep', *others]) + "\n")
    log = read_run(path)
    assert len(log.rows) == 3
    assert dict(log.skipped) == {"half-written line(s) skipped": 1}


def test_a_report_inside_an_epoch_is_replayed_as_what_it_was(tmp_path):
    def train(name, stop):
        with Run(tmp_path / name, state=Given({"m": {"w": 1}}), stop=stop, durability="process") as run:
            for epoch in run.epochs(12):
                for batch in run.batches([1, 2, 3, 4]):
                    if batch in (1, 3):
                        run.report(val_loss=(4 * epoch + batch) ** -2.0)
                run.report(val_loss=(4 * epoch + 4) ** -2.0)
        return run.stopped

    rule = RemainingGain(0.05)  # it counts the reports of an epoch
    trained = train("cut", rule)
    train("whole", None)
    (curve,) = read(tmp_path / "whole").curves
    assert [report.inside for report in curve.reports[:6]] == [True, True, False] * 2
    outcome = replay(curve, rule)
    assert outcome.reports == len(read_run(tmp_path / "cut").rows) < len(curve.reports)
    assert outcome.stop == str(trained)
    assert (outcome.passes, curve.unit) == (read_run(tmp_path / "cut").rows[-1].step, "step")
