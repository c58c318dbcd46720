from __future__ import annotations

import json

import pytest

from stopctl import Every, Maximize, Minimize, Patience, Run
from stopctl.runs.history import best_of, history, where
from stopctl.runs.moment import Place
from stopctl.store import Reader
from support.ran import ran


def read(path):
    return history(Reader(path), "val_loss")


def test_every_decision_is_a_sentence_in_the_order_of_the_journal(tmp_path):
    found = read(ran(tmp_path / "run"))
    texts = [(m.event, m.place.epoch, m.text) for m in found.standing()]
    assert texts[:3] == [
        ("start", 0, "the run begins"),
        ("report", 1, "new best 0.5"),
        ("saved", 1, "saved epoch-0001-step-000000010-w0001: new best 0.5"),
    ]
    assert ("report", 4, "") in texts
    assert ("report", 6, "stop: no improvement over 0.3 for 3 reports") in texts
    assert texts[-1] == ("close", 6, "closed")
    assert found.stop()["epoch"] == 6
    assert len(found.reports()) == 6


def test_what_a_resume_went_back_before_is_voided_and_kept(tmp_path):
    path = ran(tmp_path / "run", (0.5, 0.4, 0.6), stop=None, save=Every(epochs=2))
    with Run(path, state={"weight": 0.0}, stop=None, save=Every(epochs=2), durability="process") as run:
        for epoch in run.epochs(4):
            run.report(val_loss=0.1 * epoch)
    found = read(path)
    assert [
        (m.place.epoch, m.line["metrics"]["val_loss"])
        for m in found.moments
        if m.voided and m.event == "report"
    ] == [(3, 0.6)]
    assert [line["metrics"]["val_loss"] for line in found.reports()] == [0.5, 0.4, 0.1 * 3, 0.1 * 4]
    assert "resumed from epoch-0002-step-000000020-w0001" in [m.text for m in found.standing()]


def test_a_stop_that_a_resume_went_on_after_does_not_stand(tmp_path):
    path = ran(tmp_path / "run")
    with Run(path, state={"weight": 0.0}, stop=Patience(9), durability="process") as run:
        for _ in run.epochs(7):
            run.report(val_loss=0.7)
    assert read(path).stop() is None


def test_garbled_lines_are_skipped_and_counted_and_a_last_one_without_its_end_is_not(tmp_path):
    path = ran(tmp_path / "run")
    whole = read(path)
    with (path / "journal.jsonl").open("a") as journal:
        journal.write('{"event": "repo\n[1]\n{"event": "rep')
    found = read(path)
    assert found.skipped == 2
    assert len(found.moments) == len(whole.moments)


def test_lines_without_counters_and_of_a_writer_that_was_taken_over_say_nothing(tmp_path):
    path = ran(tmp_path / "run")
    before = len(read(path).moments)
    lines = [
        {"event": "report", "epoch": 7, "step": 70, "writer": 0, "metrics": {"val_loss": 0.0}},
        {"event": "report", "epoch": "7", "step": 70, "metrics": {"val_loss": 0.0}},
        {"event": "report", "epoch": 7, "step": 70, "metrics": None},
        {"event": "report", "epoch": 7, "step": -1, "metrics": {"val_loss": 0.0}},
        {"event": "left", "directory": "x"},
    ]
    with (path / "journal.jsonl").open("a") as journal:
        journal.writelines(json.dumps(line) + "\n" for line in lines)
    assert len(read(path).moments) == before


def test_places_are_told_by_what_is_counted():
    assert where(Place(3, 30)) == "epoch 3, step 30"
    assert where(Place(3, 0)) == "epoch 3"
    assert where(Place(0, 30)) == "step 30"


def test_a_run_is_finished_once_the_save_of_its_last_pass_stands(tmp_path):
    path = ran(tmp_path / "run", (0.5, 0.4), planned=2)
    assert read(path).finished()
    with Run(path, state={"weight": 0.0}, durability="process") as run:
        for _ in run.epochs(5):
            run.report(val_loss=0.6)
            break
    assert not read(path).finished()
    assert not read(ran(tmp_path / "left", (0.5, 0.4))).finished()


@pytest.mark.parametrize(
    ("values", "goal", "best"),
    [
        ([0.5, 0.3, 0.3, "NaN", "-Infinity"], Minimize("x"), 1),
        ([0.5, 0.3, "Infinity"], Maximize("x"), 0),
        (["NaN", None], Minimize("x"), None),
        ([], Minimize("x"), None),
    ],
)
def test_the_best_report_is_the_first_with_the_best_finite_value(values, goal, best):
    assert best_of([{"metrics": {"x": value}} for value in values], goal) == best
