"""What of a table is one run: small inputs with the curves that they have, by hand."""

from __future__ import annotations

import json
import math

import pytest

from stopctl import After, NonFinite, SettingError
from stopctl.curves.recording import CurveError
from stopctl.curves.replay import replay
from support.logs import our_run, points, read, write


def table(*rows, header="epoch,val_loss"):
    return "\n".join([header, *(",".join(map(str, row)) for row in rows), ""])


def falling(*epochs):
    """A row for each epoch; its value tells its place in the file."""
    return [(epoch, 100 - i) for i, epoch in enumerate(epochs)]


def found(path, text, **asked):
    """The points of each curve, and the notes without the file's name."""
    curves = read(write(path, text), **asked)
    short = [note.replace(str(path), path.name) for note in curves.notes]
    return [points(curve) for curve in curves.curves], short


RESUME = table(*falling(1, 2, 3, 4, 3, 4, 5))
RESUMED = [(1, 100), (2, 99), (3, 96), (4, 95), (5, 94)]
AGAIN = "a.csv: 2 values left out: reported again after a resume"
TWICE = table(*falling(0, 1, 2, 0, 1, 2, 3))

SHAPES = {
    "a resume voids what is reported again": (RESUME, {}, [RESUMED], [AGAIN]),
    "whatever the case of the counter's name": (RESUME.replace("epoch", "Epoch"), {}, [RESUMED], [AGAIN]),
    "a resume that repeats the newest epoch alone": (
        table(*falling(1, 2, 3, 4, 4, 5, 6)), {}, [[(1, 100), (2, 99), (3, 98), (4, 96), (5, 95), (6, 94)]],
        ["a.csv: 1 value left out: reported again after a resume"],
    ),
    "also in a short log": (
        table(*falling(1, 2, 2, 3)), {}, [[(1, 100), (2, 98), (3, 97)]],
        ["a.csv: 1 value left out: reported again after a resume"],
    ),
    "a resumed log whose rows have names of their own": (
        table(*((e, f"r{i}", 9 - i) for i, e in enumerate((1, 2, 3, 4, 3, 4, 5))), header="epoch,id,val_loss"), {},
        [[(1, 9), (2, 8), (3, 5), (4, 4), (5, 3)]], [AGAIN],
    ),
    "epochs with several rows each are reports inside": (
        table(*falling(1, 1, 2, 2, 3, 3)), {}, [[(1, 100), (1, 99), (2, 98), (2, 97), (3, 96), (3, 95)]],
        ["a.csv: 3 epochs have 2 rows each: taken as reports inside an epoch"],
    ),
    "some epochs with several rows": (
        table(*falling(1, 1, 2)), {}, [[(1, 100), (1, 99), (2, 98)]],
        ["a.csv: 1 epoch has several rows each: taken as reports inside an epoch"],
    ),
    "back to the first epoch is another run": (
        TWICE, {}, [[(1, 100), (2, 99), (3, 98)], [(1, 97), (2, 96), (3, 95), (4, 94)]],
        ["a.csv (1 of 2): goes back to its first epoch in line 5: taken as 2 runs "
         "(--restart resume, or goes-on, says otherwise)"],
    ),
    "unless it is a resume": (
        TWICE, {"restart": "resume"}, [[(1, 97), (2, 96), (3, 95), (4, 94)]],
        ["a.csv: goes back to its first epoch in line 5: taken as a resume",
         "a.csv: 3 values left out: reported again after a resume"],
    ),
    "or goes on": (
        TWICE, {"restart": "goes-on"}, [[(i, 101 - i) for i in range(1, 8)]],
        ["a.csv: goes back to its first epoch in line 5: counted on"],
    ),
    "a line without the counter takes it from nobody": (
        table(*falling(1, 2, 3, 4), ("", 7), *falling(3, 4, 5)), {}, [[(1, 100), (2, 99), (3, 100), (4, 99), (5, 98)]],
        ["a.csv: 1 row left out: no epoch there", AGAIN],
    ),
    "a log that begins late says so": (
        table(*falling(13, 14, 15, 16)), {}, [[(13, 100), (14, 99), (15, 98), (16, 97)]],
        ["a.csv: begins at epoch 13: what came before is not in it"],
    ),
    "a validation every fifth epoch begins in time": (
        table(*falling(5, 10, 15)), {}, [[(5, 100), (10, 99), (15, 98)]], [],
    ),
    "empty cells where every row before has a value": (
        table(*falling(1, 2, 3), (4, ""), (5, "")), {}, [[(1, 100), (2, 99), (3, 98)]],
        ["a.csv: epochs 4 to 5 have no 'val_loss' (2 of 5 rows): --empty nan counts them as NaN"],
    ),
    "empty cells that are not the last": (
        table(*falling(1, 2, 3), (4, ""), (5, 1), (6, "")), {}, [[(1, 100), (2, 99), (3, 98), (5, 1)]],
        ["a.csv: rows from line 5 on have no 'val_loss' (2 of 6 rows): --empty nan counts them as NaN"],
    ),
    "one empty cell": (
        table(*falling(1, 2, 3), (4, ""), (5, 1)), {}, [[(1, 100), (2, 99), (3, 98), (5, 1)]],
        ["a.csv: epoch 4 has no 'val_loss' (1 of 5 rows): --empty nan counts them as NaN"],
    ),
    "empty cells of rows that never had the value say nothing": (
        table((1, ""), (1, 3), (2, ""), (2, 2), (3, ""), (3, 1)), {}, [[(1, 3), (2, 2), (3, 1)]], [],
    ),
    "steps from zero are completed a gap later": (
        table((0, 3), (100, 2), (200, 1), header="step,val_loss"), {}, [[(100, 3), (200, 2), (300, 1)]], [],
    ),
    "an epoch from zero is completed by its report, however many lie between": (
        table((0, 3), (5, 2), (10, 1)), {}, [[(1, 3), (6, 2), (11, 1)]], [],
    ),
    "without counters every row is an epoch, which is said": (
        table((3,), (2,), (1,), header="val_loss"), {}, [[(1, 3), (2, 2), (3, 1)]],
        ["a.csv: no counter: each row is taken for an epoch"],
    ),
    "a cell that is no number is skipped, counted and quoted": (
        table(*falling(1, 2, 3), (4, "tensor(0.3)"), (5, 1)), {}, [[(1, 100), (2, 99), (3, 98), (5, 1)]],
        ["a.csv: 1 cell of 'val_loss' skipped: no number, such as 'tensor(0.3)' in line 5"],
    ),
    "a fraction of an epoch orders the rows where nothing else does": (
        table((0.5, 4), (1.5, 3), (2.5, 2), (1.5, 9), (2.5, 8)), {}, [[(1, 4), (2, 9), (3, 8)]], [AGAIN],
    ),
    "of two counters the one that never goes back is taken": (
        table((0, 0, 3), (1, 1, 2), (0, 2, 1), (1, 3, 0), header="step,_step,val_loss"), {},
        [[(1, 3), (2, 2), (3, 1), (4, 0)]], [],
    ),
    "a counter that stands still is none": (
        table((7, 10, 3), (7, 20, 2), (7, 30, 1), header="epoch,step,val_loss"), {},
        [[(10, 3), (20, 2), (30, 1)]], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_of_one_run_or_more(tmp_path, shape):
    text, asked, curves, notes = SHAPES[shape]
    assert found(tmp_path / "a.csv", text, **asked) == (curves, notes)


FOLDS = table(
    *((fold, epoch, 10 * fold + epoch) for fold in (0, 1) for epoch in (1, 2, 3)),
    header="fold,epoch,val_loss",
)
PHASES = table(*((e, p, 10 - e) for e in (1, 2, 3) for p in ("train", "val")), header="epoch,phase,loss")

SEVERAL = {
    "folds": (FOLDS, {}, r"told apart by 'fold' \(0, 1\): write --by fold \(a run each\) or --where fold=0$"),
    "phases": (PHASES, {}, r"told apart by 'phase' \(train, val\): write --by phase .* or --where phase=val$"),
    "phases with a step of their own": (
        table(*((2 * e + (p == "val"), p, 1) for e in (1, 2, 3) for p in ("train", "val")), header="step,split,loss"),
        {}, "told apart by 'split'",
    ),
    "seeds without a counter": (
        table((1, 3), (1, 2), (2, 3), (2, 1), header="seed,val_loss"), {}, "told apart by 'seed'",
    ),
    "a name nobody knows that divides into whole runs": (
        table(*((e, "xy"[k], e) for k in (0, 1) for e in (1, 2, 3)), header="epoch,variant,val_loss"), {},
        "told apart by 'variant'",
    ),
    "a table of runs by name": (
        table(("a", 10, 1), ("b", 10, 2), ("c", 10, 3), header="Name,epoch,val_loss"), {},
        r"is a table of 3 runs, a row each \('Name' differs in every row\), and no run: export their history",
    ),
    "a table of runs by state": (
        table(("finished", 1), ("crashed", 2), ("finished", 3), header="State,val_loss"), {},
        r"a table of 3 runs, a row each \('State' tells how each ended\)",
    ),
    "no such column to divide by": (FOLDS, {"by": "folds"}, "has no column 'folds': it has fold, epoch, val_loss$"),
    "no such column to select by": (FOLDS, {"where": ("folds", "1")}, "has no column 'folds'"),
    "no such value": (FOLDS, {"where": ("fold", "7")}, "has no row with fold=7: there are 0, 1$"),
}  # fmt: skip


@pytest.mark.parametrize("shape", SEVERAL)
def test_a_table_that_cannot_be_one_run_is_refused(tmp_path, shape):
    text, asked, message = SEVERAL[shape]
    column = "loss" if "val_loss" not in text else None
    with pytest.raises(CurveError, match=message):
        read(write(tmp_path / "a.csv", text), column=column, **asked)


def test_by_gives_a_run_each_and_where_the_rows_of_one(tmp_path):
    path = write(tmp_path / "folds.csv", FOLDS)
    each = read(path, by="fold").curves
    assert [curve.name for curve in each] == [f"{path} [fold=0]", f"{path} [fold=1]"]
    assert [points(curve) for curve in each] == [[(1, 1), (2, 2), (3, 3)], [(1, 11), (2, 12), (3, 13)]]
    assert [points(curve) for curve in read(path, where=("fold", "1")).curves] == [
        [(1, 11), (2, 12), (3, 13)]
    ]
    phases = write(tmp_path / "phases.csv", PHASES)
    (curve,) = read(phases, column="loss", where=("phase", "val")).curves
    assert (curve.name, points(curve)) == (f"{phases} [phase=val]", [(1, 9), (2, 8), (3, 7)])


def test_a_run_of_its_own_log_cannot_be_divided(tmp_path):
    path = our_run(tmp_path, "r", "val_loss", [3, 2, 1])
    for asked in ({"by": "fold"}, {"where": ("fold", "1")}):
        with pytest.raises(CurveError, match="is one run, as its log says: leave out --by and --where"):
            read(path, **asked)


def test_a_resume_is_no_division_whatever_was_marked(tmp_path):
    text = table(
        *((e, 9 - i, int(i < 3)) for i, e in enumerate((1, 2, 3, 3, 4, 5))), header="epoch,val_loss,flag"
    )
    assert len(read(write(tmp_path / "a.csv", text)).curves) == 1


def test_empty_cells_may_count_as_nan(tmp_path):
    path = write(tmp_path / "a.csv", table(*falling(1, 2, 3), (4, ""), (5, "")))
    (curve,) = read(path, empty="nan").curves
    assert [math.isnan(value) for value in curve.values] == [False] * 3 + [True] * 2
    assert replay(curve, NonFinite()).passes == 4


def test_a_time_that_does_not_rise_is_no_clock(tmp_path):
    lines = [json.dumps({"iteration": i, "time": 0.25, "val_loss": 1 / i}) for i in (20, 40, 60)]
    (curve,) = read(write(tmp_path / "a.jsonl", "\n".join(lines))).curves
    with pytest.raises(
        SettingError, match="does not tell: 'time' does not rise from row to row, so it is no clock$"
    ):
        replay(curve, After(seconds=10))
    lines = [json.dumps({"epoch": i, "time": t, "val_loss": 1}) for i, t in enumerate((10, 20, 40, 5, 50), 1)]
    (curve,) = read(write(tmp_path / "b.jsonl", "\n".join(lines))).curves
    assert [report.seconds for report in curve.reports] == [10, 20, 40, 40, 50]  # it began anew
