"""What the page knows of a run: of one that went well, one that crashed, one that says nonsense."""

from __future__ import annotations

import json
import math

import pytest

from stopctl import Every, Maximize, NonFinite, OnBest, Patience, ReduceOnPlateau, Run
from stopctl.core.words import size
from stopctl.report.data import page_run, page_runs
from stopctl.report.words import duration
from support.given import Given, leaf, torch_like


class Crash(Exception):
    pass


def train(directory, losses, *, crash_after=None, step=10, goal=None, **rules):
    state = Given({"model": torch_like(w=leaf([1.0]))}, {"torch": "2.9"})
    options = {} if goal is None else {"goal": goal}
    with Run(directory, state=state, durability="process", **options, **rules) as run:
        for epoch in run.epochs(len(losses)):
            run.step(step)
            run.report(val_loss=losses[epoch - 1])
            if epoch == crash_after:
                raise Crash
    return directory


LOSSES = [1.0, 0.6, 0.4, 0.5, 0.45, 0.55, 0.7]


def test_curves_marks_and_words_of_a_run_that_stopped(tmp_path):
    run = page_run(
        train(tmp_path / "net", LOSSES, stop=Patience(3), save=Every(epochs=4) | OnBest(), notes={"lr": 1e-3})
    )
    drawn = run.drawn
    assert (run.name, run.metric, run.unit, run.best_value) == ("net", "val_loss", "epoch", "0.4")
    assert run.summary.startswith("best val_loss, at epoch 3 of 6 · ")
    assert run.ending == "Stopped after epoch 6: no improvement over 0.4 for 3 reports."
    assert (drawn["epoch"], drawn["step"]) == ([1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60])
    assert drawn["values"] == {"val_loss": LOSSES[:6]}
    assert (drawn["best"], drawn["stop"], drawn["drops"], drawn["resumes"], drawn["voided"]) == (
        2,
        5,
        [],
        [],
        [],
    )
    assert (drawn["kept"], drawn["pruned"]) == ([2, 3, 5], [0, 1])
    assert drawn["decisions"] == {
        0: "saved: new best 1",
        1: "saved: new best 0.6",
        2: "saved: new best 0.4",
        3: "saved: every 4 epochs",
        5: "stop: no improvement over 0.4 for 3 reports; saved: the run stops",
    }
    assert [(kept.info.epoch, kept.tags) for kept in run.checkpoints] == [
        (6, ("latest",)),
        (4, ()),
        (3, ("best",)),
    ]
    assert run.checkpoints[0].why == "the run stops"
    assert run.facts["rules"]["stop"] == "Patience(3)"
    assert {report.planned for report in run.question.reports} == {7}
    assert run.facts["notes"] == {"lr": "0.001"}
    assert run.facts["made with"]["torch"] == "2.9"


def test_a_resume_voids_what_it_repeats(tmp_path):
    rules = {"stop": Patience(5), "save": Every(epochs=2), "lr": ReduceOnPlateau(0.5, patience=2)}
    with pytest.raises(Crash):
        train(tmp_path, [loss + 9 for loss in LOSSES], crash_after=5, **rules)
    train(tmp_path, LOSSES, **rules)
    drawn = page_run(tmp_path).drawn
    assert drawn["values"]["val_loss"] == [10.0, 9.6, 9.4, 9.5, *LOSSES[4:]]
    assert [(part["epoch"], part["values"]["val_loss"]) for part in drawn["voided"]] == [([5], [9.45])]
    assert drawn["resumes"] == [4]
    assert len(drawn["drops"]) == 1
    assert drawn["decisions"][drawn["drops"][0]].startswith("learning rate times 0.5")


def test_a_run_that_was_finished_goes_on_under_larger_rules(tmp_path):
    train(tmp_path, LOSSES, stop=Patience(2))
    assert page_run(tmp_path).drawn["stop"] == 4
    run = page_run(train(tmp_path, LOSSES, stop=Patience(10)))
    assert run.drawn["stop"] is None
    assert run.ending == "Ended after epoch 7, the last that was planned."
    assert run.drawn["decisions"][4].startswith("stop: no improvement over 0.4 for 2 reports")
    train(tmp_path, LOSSES, stop=Patience(10))  # finished: nothing is trained
    assert page_run(tmp_path).ending == run.ending


def test_the_commit_and_the_gpu_are_told_but_not_the_command_and_the_host(tmp_path):
    path = train(tmp_path / "run", LOSSES, stop=None) / "run.json"
    meta = json.loads(path.read_text())
    git = {"commit": "c0ffee" * 7, "dirty": True}
    meta["program"] = {"argv": ["train.py", "hidden"], "host": "hidden", "git": git, "gpu": "H200"}
    path.write_text(json.dumps(meta))
    run = page_run(tmp_path / "run")
    assert run.facts["made with"] == {"torch": "2.9", "git": "c0ffeec0ffee and changes", "gpu": "H200"}
    assert "hidden" not in repr(run)


def test_a_run_that_broke_off_says_so(tmp_path):
    with pytest.raises(Crash):
        train(tmp_path, LOSSES, crash_after=2)
    assert page_run(tmp_path).ending.startswith("Not ended, closed by Crash: epoch 2 is the newest")
    with Run(tmp_path / "b", state={"w": 0}, durability="process") as run:
        for _ in run.epochs(2):
            run.report(val_loss=1.0)
            break
        assert page_run(tmp_path / "b").ending == "Running: epoch 1 is the newest."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "0.0123 s"), (11.69, "11.7 s"), (100, "2 min"), (5990, "1 h 40 min"), (50000, "13 h 53 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1236339, "1.2 MB"),
        (5.1e9, "5.1 GB"),
        (3e12, "3.0 TB"),
        (4e15, "4000.0 TB"),
    ],
)
def test_sizes(count, text):
    assert size(count) == text


def test_a_larger_value_may_be_better(tmp_path):
    run = page_run(train(tmp_path, LOSSES, stop=None, goal=Maximize("val_loss")))
    assert (run.drawn["best"], run.best_value) == (0, "1")


def test_values_that_are_not_finite_are_strict_json(tmp_path):
    run = page_run(train(tmp_path, [math.nan, math.inf, -math.inf], stop=None))
    assert run.drawn["values"]["val_loss"] == ["NaN", "Infinity", "-Infinity"]
    assert (run.best_value, run.drawn["best"]) == ("none", None)
    assert run.summary.startswith("val_loss was never finite, in 3 epochs")
    stopped = page_run(train(tmp_path / "b", [1.0, math.nan], stop=NonFinite()))
    assert stopped.ending == "Stopped after epoch 2: the value is NaN."


def test_a_loop_over_steps_is_told_in_steps(tmp_path):
    with Run(tmp_path, state={"w": 0}, stop=Patience(2), durability="process") as run:
        for step in run.steps(100):
            if step % 10 == 0:
                run.report(val_loss=1.0)
    told = page_run(tmp_path)
    assert told.unit == "step"
    assert told.ending == "Stopped after step 30: no improvement over 1 for 2 reports."
    assert [reason.passes for reason in told.reasons] == [10, 30]


def test_reports_inside_an_epoch_are_told_apart_by_their_steps(tmp_path):
    train(tmp_path, LOSSES[:2], stop=None)
    path = tmp_path / "journal.jsonl"
    line = {
        "event": "report",
        "epoch": 2,
        "step": 25,
        "seconds": 9.0,
        "inside": True,
        "metrics": {"val_loss": 0.1},
    }
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    run = page_run(tmp_path)
    assert (run.unit, run.drawn["step"]) == ("step", [10, 20, 25])
    assert run.summary.startswith("best val_loss, at step 25 of 25")


@pytest.mark.parametrize(
    ("reports", "places"),
    [
        # (epoch, step, inside): those at an epoch's end tell its steps
        ([(0, 5, 1), (1, 10, 0), (1, 15, 1), (2, 20, 0), (2, 22, 1)], [0.5, 1, 1.5, 2, 2.2]),
        # none is reported at an end: an epoch is as long as the steps between its first and the next one's
        ([(0, 2, 1), (0, 4, 1), (1, 6, 1), (1, 8, 1)], [0.5, 1, 1.5, 2]),
        ([(0, 25, 1), (0, 50, 1), (0, 75, 1)], [0.25, 0.5, 0.75]),  # the first epoch, of unknown length
        ([(0, 7, 1)], [0.875]),
        ([(1, 10, 0), (2, 20, 0), (2, 40, 1)], [1, 2, 2.9524]),  # longer than those before it
    ],
)
def test_a_report_inside_an_epoch_stands_where_its_step_is_in_it(tmp_path, reports, places):
    train(tmp_path, LOSSES[:1], stop=None)
    kept = [line for line in (tmp_path / "journal.jsonl").read_text().splitlines() if '"start"' in line]
    for epoch, step, inside in reports:
        line = {"event": "report", "epoch": epoch, "step": step, "metrics": {"val_loss": 1.0}}
        kept.append(json.dumps({**line, **({"inside": True} if inside else {})}))
    (tmp_path / "journal.jsonl").write_text("\n".join(kept) + "\n")
    assert page_run(tmp_path).drawn["at"] == places


@pytest.mark.parametrize("inside", [False, True])
def test_saves_between_reports_are_among_the_reasons(tmp_path, inside):
    with Run(tmp_path, state={"w": 0}, save=Every(steps=3), stop=None, durability="process") as run:
        for epoch in run.epochs(2):
            for batch in run.batches([1, 2, 3, 4]):
                if inside and batch == 2:
                    run.report(val_loss=1.0)
            run.report(val_loss=1.0 / epoch)
    told = page_run(tmp_path)
    saved = "saved: every 3 steps"
    at = [(reason.passes, reason.text) for reason in told.reasons if saved in reason.text]
    assert at == ([(3, saved), (6, saved)] if inside else [(0, f"step 3: {saved}"), (1, f"step 6: {saved}")])


def test_a_boundary_s_stop_is_told_at_the_report_before_it(tmp_path):
    train(tmp_path, LOSSES[:2], stop=None)
    line = {"event": "boundary", "epoch": 2, "step": 20, "stop": {"text": "2 hours are over"}, "save": None}
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    run = page_run(tmp_path)
    assert "stop: 2 hours are over" in run.drawn["decisions"][1]
    assert "stop: 2 hours are over" in run.reasons[-1].text


def test_a_run_without_reports_has_a_page(tmp_path):
    with Run(tmp_path, state={"w": 0}):
        pass
    run = page_run(tmp_path)
    assert (run.ending, run.summary) == (
        "Not begun: nothing was reported yet.",
        "val_loss: nothing was reported yet",
    )
    assert run.drawn["values"] == {}


def test_lines_that_say_nonsense_say_nothing(tmp_path):
    train(tmp_path, LOSSES[:3], stop=None)
    before = page_run(tmp_path).drawn
    with (tmp_path / "journal.jsonl").open("a") as file:
        for line in (
            {"event": "report", "epoch": "4", "step": 40, "metrics": {}},
            {"event": "report", "epoch": 4, "metrics": {}},
            {"event": "report", "epoch": 4, "step": 40, "metrics": [1]},
            {"event": "saved"},
            {"event": "unheard of", "epoch": 4, "step": 40},
        ):
            file.write(json.dumps(line) + "\n")
        file.write("{ torn")
    assert page_run(tmp_path).drawn == before


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    paths = [tmp_path / "a" / "net", tmp_path / "b" / "net", tmp_path / "b" / "other"]
    for path in paths:
        train(path, LOSSES[:1])
    assert [run.name for run in page_runs(paths)] == ["a/net", "b/net", "b/other"]
    assert [run.name for run in page_runs(paths[1:])] == ["net", "other"]
    assert [run.name for run in page_runs(paths[:1] * 2)] == ["net", "net"]


@pytest.mark.parametrize(
    "name",
    ["token", "HF_TOKEN", "wandb api key", "accessKey", "AWSSecretKey", "db-passwords", "apikey", "pwd2"],
)
def test_notes_whose_names_say_that_they_are_secret_are_masked(tmp_path, name):
    secret = "do not show"
    notes = {name: secret, "deep": [{name: {"inner": secret}}], "seed": 1}
    run = page_run(train(tmp_path, LOSSES, notes=notes))
    assert secret not in repr(run)
    assert run.facts["notes"][name] == "(masked)"
    assert run.facts["notes"]["seed"] == "1"
