from __future__ import annotations

import json
import math
import random

import pytest

from stopctl import Maximize, Minimize, Patience, StopctlError
from stopctl.core.progress import Report
from stopctl.curves.curve import Curve, read_curves
from stopctl.curves.recording import CurveError
from support.logs import FORMATS, keras, our_run

GOAL = Minimize("v")
VALUES = [0.9, 0.5, 0.7, 0.4, 0.45]


def curve(values, goal=GOAL):
    reports = (Report({"v": v}, t, planned=len(values)) for t, v in enumerate(values, start=1))
    return Curve("run", goal, tuple(reports))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_curve(name, tmp_path):
    path = FORMATS[name](tmp_path, "a", "val_loss", VALUES)
    read = read_curves([path])
    (found,) = read.curves
    assert read.notes == ()
    assert found.values == tuple(VALUES)
    assert found.goal == Minimize("val_loss")
    assert [found.passed(t) for t in range(1, 6)] == [1, 2, 3, 4, 5]
    assert found.unit == ("step" if name == "events" else "epoch")
    assert found.reports[0].planned == 5
    assert found.cut == ""


def test_share_regret_and_what_is_restored_follow_their_formulas():
    nan = math.nan
    found = curve([4, 3, nan, 2, 1, 1.5])
    assert [found.share(t) for t in (1, 3, 6)] == [1 / 6, 0.5, 1]
    assert [found.regret(t) for t in range(1, 7)] == [1.5, 1.0, 1.0, 0.5, 0.0, 0.0]  # m = 3, b = 1
    assert [found.restored(t) for t in (1, 3, 4)] == [4, 3, 2]
    assert curve([nan, 4, 3, 2, 1]).regret(1) == 1.0
    assert curve([nan, 4, 3, 2, 1]).restored(1) is None
    assert curve([1, 1, 1]).regret(1) == 0.0
    assert curve([2, 1, 1, 1]).regret(1) == 1.0  # m = b: the first value takes its place


def test_maximize_is_minimize_of_the_negated_values():
    rng = random.Random(0)
    for _ in range(50):
        values = [rng.choice([math.nan, rng.random(), 0.5]) for _ in range(rng.randint(3, 12))]
        a, b = curve(values), curve([-v for v in values], Maximize("v"))
        for t in range(1, len(values) + 1):
            assert a.regret(t) == b.regret(t)


def test_a_folder_is_searched_for_runs_and_event_files(tmp_path):
    FORMATS["events"](tmp_path / "tb" / "deep", "b", "val_loss", VALUES)
    our_run(tmp_path, "a", "val_loss", VALUES)
    read = read_curves([tmp_path])
    assert [found.name for found in read.curves] == [str(tmp_path / "a"), str(tmp_path / "tb" / "deep" / "b")]
    assert read_curves([tmp_path / "a" / "journal.jsonl"]).curves[0].values == tuple(VALUES)


def test_a_metric_of_the_run_s_that_is_not_its_goal_can_be_asked_for(tmp_path):
    our_run(tmp_path, "a", "val_loss", VALUES)
    with pytest.raises(CurveError, match="has no column 'val_acc'; it has: val_loss"):
        read_curves([tmp_path / "a"], column="val_acc")
    path = tmp_path / "b.csv"
    path.write_text("epoch,val_loss,val_acc\n1,3,0.1\n2,2,0.2\n3,1,0.3\n")
    (found,) = read_curves([path], column="val_acc").curves
    assert (found.goal, found.values) == (Maximize("val_acc"), (0.1, 0.2, 0.3))


def test_mixed_directions_are_an_error_unless_they_are_wanted(tmp_path):
    paths = [keras(tmp_path, "a", "val_loss", VALUES), keras(tmp_path, "b", "val_acc", VALUES)]
    with pytest.raises(
        CurveError,
        match=r"^mixed directions: 'val_loss' of .*a.csv is to be small, 'val_acc' of .*b.csv large: .*--mixed$",
    ):
        read_curves([paths[0], *[paths[1]]], column=None)
    with pytest.raises(CurveError, match="mixed directions"):
        read_curves(paths[::-1])
    assert len(read_curves(paths, mixed=True).curves) == 2


def test_curves_with_too_few_values_are_left_out_and_said(tmp_path):
    paths = [
        keras(tmp_path, "a", "val_loss", VALUES),
        keras(tmp_path, "b", "val_loss", [1.0, math.nan, 2.0]),
    ]
    read = read_curves(paths)
    assert len(read.curves) == 1
    assert read.notes == (f"{paths[1]}: left out, 2 finite of 3 values of 'val_loss'",)
    with pytest.raises(
        CurveError, match=r"^no curves in .*b\.csv \(.*2 finite of 3 .*\): give runs with at least 3"
    ):
        read_curves(paths[1:])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "epoch,reward\n1,2\n2,3\n3,4\n", "is 'reward' better small or large"),
        (
            "a.csv",
            "epoch,val_loss\n1,0.\n2\n",
            r"no curves in .*a.csv: 1 half-written line skipped; .*1 finite of 1 values",
        ),
        ("a.jsonl", "", "no curves in .*: left out, nothing was reported there"),
        ("a.png", "x", "what is it"),
        ("folder/x.txt", "x", "holds no run and no event files"),
        ("folder/run.json", "{", "run.json"),
        ("folder/run.json", '{"format": 99, "writer": 1}', "has format 99"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(tmp_path, name, content, message):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(StopctlError, match=message) as caught:
        read_curves([path.parent if path.parent != tmp_path else path])
    assert "\n" not in str(caught.value)


def test_what_is_not_there_and_a_wrong_mode_are_named(tmp_path):
    with pytest.raises(CurveError, match="nowhere is not there"):
        read_curves([tmp_path / "nowhere"])
    with pytest.raises(CurveError, match="mode is 'up'"):
        read_curves([], mode="up")
    with pytest.raises(CurveError, match="no curves in what was given"):
        read_curves([])


def test_seconds_a_pass_is_the_median_and_a_clock_that_begins_anew_never_goes_back(tmp_path):
    path = tmp_path / "a.jsonl"
    times = [10, 20, 40, 5, 50]
    path.write_text(
        "\n".join(json.dumps({"epoch": i, "seconds": s, "val_loss": i}) for i, s in enumerate(times, 1))
    )
    (found,) = read_curves([path]).curves
    assert [report.seconds for report in found.reports] == [10, 20, 40, 40, 50]
    assert found.seconds_a_pass() == 10
    assert curve([1, 2, 3]).seconds_a_pass() is None


def test_where_an_epoch_has_several_reports_seconds_a_pass_are_those_of_whole_epochs():
    epochs, seconds = [1, 1, 1, 2, 2, 2, 3, 3], [4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0]
    pairs = zip(epochs, seconds, strict=True)
    reports = tuple(Report({"v": 1 / at}, epoch, seconds=at) for epoch, at in pairs)
    assert Curve("run", GOAL, reports).seconds_a_pass() == 12


def test_a_curve_with_reports_inside_its_epochs_counts_steps():
    places = [(0, 5, True), (1, 10, False), (1, 15, True), (2, 20, False)]
    reports = tuple(
        Report({"v": 1 / step}, epoch, step, 2.0 * step, 2, inside=inside) for epoch, step, inside in places
    )
    found = Curve("run", GOAL, reports)
    assert (found.unit, found.passed(3), found.seconds_a_pass()) == ("step", 15, 2)


def test_our_runs_say_what_cut_them_and_what_saves_took(tmp_path):
    stopped = our_run(tmp_path, "a", "val_loss", [3, 2, 1, 2, 2, 0], stop=Patience(2))
    (found,) = read_curves([stopped]).curves
    assert (found.values, found.cut, found.told) == ((3, 2, 1, 2, 2), "stopped by patience", True)
    ((took, size),) = found.saves
    assert took > 0
    assert size > 0
