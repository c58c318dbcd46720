from __future__ import annotations

import math
import shutil

import pytest

from stopctl import Maximize, Minimize, Patience, StopctlError
from stopctl.curves.curve import cut_by
from stopctl.curves.recording import CurveError
from support.logs import FORMATS, STEPS, event_file, keras, our_run, points, read, write

VALUES = [0.9, 0.5, 0.7, 0.4, 0.45]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_curve(name, tmp_path):
    path = FORMATS[name](tmp_path, "a", "val_loss", VALUES)
    told = read(path)
    (found,) = told.curves
    assert told.notes == ((f"{path}: line 1 is not UTF-8: read as Latin-1",) if name == "comments" else ())
    assert found.values == tuple(VALUES)
    assert found.goal == Minimize("val_loss")
    assert [found.passed(t) for t in range(1, 6)] == [1, 2, 3, 4, 5]
    assert found.unit == ("step" if name in STEPS else "epoch")
    assert found.reports[0].planned == 5
    assert found.cut == ""
    own = name in ("curve_line", "our_run")
    assert found.guessed == (
        ("direction",) if name == "curve_line" else () if own else ("column", "direction")
    )


def test_a_folder_is_searched_for_runs_event_files_and_logs_of_known_names(tmp_path):
    FORMATS["events"](tmp_path / "tb" / "deep", "b", "val_loss", VALUES)
    our_run(tmp_path, "a", "val_loss", VALUES)
    FORMATS["yolo"](tmp_path, "c", "val_loss", VALUES)
    write(tmp_path / "d" / "notes.csv", "epoch,val_loss\n1,2\n")
    names = [found.name for found in read(tmp_path).curves]
    assert names == [str(tmp_path / name) for name in ("a", "c/results.csv", "tb/deep/b")]
    assert read(tmp_path / "a" / "journal.jsonl").curves[0].values == tuple(VALUES)


def test_training_and_validation_of_keras_are_one_run(tmp_path):
    for name, more in (("train", 0.0), ("validation", 1.0)):
        rows = []
        for i, v in enumerate(VALUES):
            rows += [(i, "epoch_loss", v + more), (2 * i + 2, "evaluation_loss_vs_iterations", 9.0 - v)]
        event_file(tmp_path / "run0" / name, rows if more else rows[::2])
    told = read(tmp_path)
    (curve,) = told.curves
    assert (curve.name, curve.goal.metric, told.notes) == (
        str(tmp_path / "run0"),
        "validation/epoch_loss",
        (),
    )
    assert points(curve) == [(i, pytest.approx(v + 1)) for i, v in enumerate(VALUES, 1)]


def test_the_folders_of_catboost_are_one_run(tmp_path):
    for name, more in (("learn", 0.0), ("test", 1.0)):
        event_file(
            tmp_path / name, [(i, "Logloss", v + more) for i, v in enumerate(VALUES)], "events.out.tfevents"
        )
    (curve,) = read(tmp_path).curves
    assert (curve.goal.metric, [report.metrics["learn/Logloss"] for report in curve.reports]) == (
        "test/Logloss", [pytest.approx(v) for v in VALUES],
    )  # fmt: skip


def test_the_folders_of_add_scalars_are_one_run(tmp_path):
    event_file(tmp_path, [(i, "grad", 0.1) for i in range(1, 6)])
    for name, more in (("loss_train", 0.0), ("loss_val", 1.0)):
        event_file(tmp_path / name, [(i, "loss", v + more) for i, v in enumerate(VALUES, 1)])
    (curve,) = read(tmp_path).curves
    assert (curve.name, curve.goal.metric) == (str(tmp_path), "loss_val")
    assert curve.reports[0].metrics == {"grad": pytest.approx(0.1), "loss_train": pytest.approx(0.9),
                                        "loss_val": pytest.approx(1.9)}  # fmt: skip


def test_a_training_folder_without_its_validation_is_a_run(tmp_path):
    event_file(tmp_path / "train", [(i, "val_loss", v) for i, v in enumerate(VALUES, 1)])
    event_file(tmp_path / "train2", [(i, "val_loss", v) for i, v in enumerate(VALUES, 1)])
    assert [curve.name for curve in read(tmp_path).curves] == [
        str(tmp_path / "train"),
        str(tmp_path / "train2"),
    ]


def test_event_files_of_several_runs_in_a_folder_are_several_curves(tmp_path):
    for n, count in ((1, 5), (2, 4)):
        rows = [(i, "val_loss", v) for i, v in enumerate(VALUES[:count])]
        event_file(tmp_path, rows, f"events.out.tfevents.{n}.host")
    told = read(tmp_path)
    assert [len(curve.values) for curve in told.curves] == [5, 4]
    assert told.notes == (
        f"{tmp_path} (1 of 2): goes back to its first step: taken as 2 runs "
        "(--restart resume, or goes-on, says otherwise)",
    )


def test_what_is_left_out_beside_another_log_is_named(tmp_path):
    path = FORMATS["yolo"](tmp_path, "r", "val_loss", VALUES)
    event_file(path.parent, [(i, "val_loss", v) for i, v in enumerate(VALUES, 1)])
    assert read(path).notes == (f"{path}: 1 event file beside it left out; name the folder to read them",)
    told = read(path.parent)
    assert [curve.format for curve in told.curves] == ["TensorBoard"]
    assert told.notes == (
        f"{path.parent}: results.csv left out, as of the same run; name the file to read it",
    )


def test_versions_of_one_lightning_run_are_joined_and_others_are_not(tmp_path):
    def version(n, epochs):
        rows = [f"{e},{10 * e + 9},{1 / (e + 1)}" for e in epochs]
        write(tmp_path / f"version_{n}" / "metrics.csv", "\n".join(["epoch,step,val_loss", *rows]))

    version(0, range(5))
    version(1, range(3, 9))  # went on after epoch 3
    version(2, range(4))  # another run
    version(10, range(9, 12))  # begins where none of them was
    told = read(tmp_path)
    first, second, third = told.curves
    assert [at for at, _ in points(first)] == list(range(1, 10))
    assert [at for at, _ in points(second)] == [1, 2, 3, 4]
    assert (third.name, third.late) == (str(tmp_path / "version_10" / "metrics.csv"), "begins at epoch 9")
    assert any(
        "version_1" in note and note.endswith("goes on where it was: taken as one run") for note in told.notes
    )
    assert cut_by(told.curves) == ["", "", "begins at epoch 9"]


def test_a_folder_goes_on_where_one_of_it_cannot_be_read(tmp_path):
    our_run(tmp_path, "a", "val_loss", VALUES)
    our_run(tmp_path, "b", "val_loss", VALUES)
    our_run(tmp_path, "other", "val_acc", VALUES)
    (tmp_path / "b" / "run.json").write_text("{")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "c" / "results.csv", "1,2\n3,4\n")
    told = read(tmp_path)
    assert [curve.name for curve in told.curves] == [str(tmp_path / "a")]
    left = sorted(note.replace(str(tmp_path), "") for note in told.notes)
    assert len(left) == 3
    assert left[0].startswith("/other: left out, its goal is Maximize('val_acc'), that of others Minimize(")
    assert "/b/run.json" in left[1]
    assert left[2].startswith("left out: /c/results.csv has no header")
    several = read(tmp_path / "a", tmp_path / "b", tmp_path / "empty")
    assert [curve.name for curve in several.curves] == [str(tmp_path / "a")]
    assert len(several.notes) == 2
    with pytest.raises(StopctlError, match=r"run\.json"):
        read(tmp_path / "b")


def test_a_metric_of_the_run_s_that_is_not_its_goal_can_be_asked_for(tmp_path):
    our_run(tmp_path, "a", "val_loss", VALUES)
    with pytest.raises(CurveError, match="has no column 'val_acc'; it has: val_loss"):
        read(tmp_path / "a", column="val_acc")
    path = write(tmp_path / "b.csv", "epoch,val_loss,val_acc\n1,3,0.1\n2,2,0.2\n3,1,0.3\n")
    (found,) = read(path, column="val_acc").curves
    assert (found.goal, found.values, found.guessed) == (Maximize("val_acc"), (0.1, 0.2, 0.3), ("direction",))


def test_mixed_directions_are_an_error_unless_they_are_wanted(tmp_path):
    paths = [keras(tmp_path, "a", "val_loss", VALUES), keras(tmp_path, "b", "val_acc", VALUES)]
    with pytest.raises(
        CurveError,
        match=r"^mixed directions: 'val_loss' of .*a.csv is to be small, 'val_acc' of .*b.csv large: .*--mixed$",
    ):
        read(*paths)
    with pytest.raises(CurveError, match="mixed directions"):
        read(*paths[::-1])
    assert len(read(*paths, mixed=True).curves) == 2


def test_curves_with_too_few_values_are_left_out_and_said(tmp_path):
    paths = [
        keras(tmp_path, "a", "val_loss", VALUES),
        keras(tmp_path, "b", "val_loss", [1.0, math.nan, 2.0]),
    ]
    told = read(*paths)
    assert len(told.curves) == 1
    assert told.notes == (f"{paths[1]}: left out, 2 finite of 3 values of 'val_loss'",)
    with pytest.raises(
        CurveError, match=r"^no curves in .*b\.csv \(.*2 finite of 3 .*\): give runs with at least 3"
    ):
        read(paths[1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "epoch,reward\n1,2\n2,3\n3,4\n", "is 'reward' better small or large"),
        (
            "a.csv",
            "epoch,val_loss\n1,0.\n2\n",
            r"no curves in .*a.csv: 1 half-written line skipped; .*1 finite of 1 values",
        ),
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", "{}", "no curves in .*: left out, nothing was reported there"),
        (
            "a.png",
            "hello you\n",
            "what is it. its first line is 'hello you'; curves come from .*csv, fairseq",
        ),
        ("folder/x.txt", "x", "holds no run, no event files and no log of a known name, such as results.csv"),
        ("folder/run.json", "{", "run.json"),
        ("folder/run.json", '{"format": 99, "writer": 1}', "has format 99"),
        ("folder/events.out.tfevents", "", "no curves in .*folder: left out, nothing was reported there"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(StopctlError, match=message) as caught:
        read(path.parent if path.parent != tmp_path else path)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_and_wrong_settings_are_named(tmp_path):
    with pytest.raises(CurveError, match="nowhere is not there"):
        read(tmp_path / "nowhere")
    with pytest.raises(CurveError, match="mode is 'up'"):
        read(mode="up")
    with pytest.raises(CurveError, match="no curves in what was given"):
        read()
    with pytest.raises(
        CurveError, match="--format yaml: there is no such format; there are catboost, csv, fairseq"
    ):
        read(keras(tmp_path, "a", "val_loss", VALUES), format="yaml")


def test_our_runs_say_what_cut_them_and_what_saves_took(tmp_path):
    stopped = our_run(tmp_path, "a", "val_loss", [3, 2, 1, 2, 2, 0], stop=Patience(2))
    (found,) = read(stopped).curves
    assert (found.values, found.cut, found.told) == ((3, 2, 1, 2, 2), "stopped by patience", True)
    ((took, size),) = found.saves
    assert took > 0
    assert size > 0


def test_a_folder_without_its_own_files_is_no_obstacle(tmp_path):
    shutil.copytree(our_run(tmp_path / "x", "a", "val_loss", VALUES), tmp_path / "y" / "z" / "a")
    assert len(read(tmp_path).curves) == 2
