"""Runs of format 1 are read by this version and by all later ones: tests/fixtures/format-1 is never made again."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch  # noqa: F401  # before TensorFlow, where both live in one process

import stopctl
from stopctl import Patience
from stopctl.ports import choose, leaf_array
from stopctl.runs.history import reports
from stopctl.store import Leaf, Reader

FOLDER = Path(__file__).parent.parent / "fixtures" / "format-1"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("make_format_1", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", EXPECTED)
def test_every_checkpoint_holds_what_was_saved(name, make):
    reader = Reader(FOLDER / name)
    listing = reader.list()
    assert listing.damaged == ()
    assert {info.name for info in listing.good} == set(EXPECTED[name])
    for info in listing.good:
        expected = EXPECTED[name][info.name]
        components, state = reader.load(info)
        assert {key: make.digest(tree) for key, tree in components.items()} == expected["components"]
        assert make.digest(state) == expected["state"]
        told = (info.label, info.pinned, info.epoch, info.step, str(info.value))
        assert told == tuple(expected[key] for key in ("label", "pinned", "epoch", "step", "value"))


@pytest.mark.parametrize("name", EXPECTED)
def test_best_latest_and_pinned_are_found_and_the_journal_is_read(name):
    found = {which: choose(FOLDER / name, which)[0] for which in ("best", "latest", "pinned")}
    assert {which: info.epoch for which, info in found.items()} == {"best": 2, "latest": 5, "pinned": 1}
    assert (found["best"].value, found["best"].is_best, found["pinned"].pinned) == (0.25, True, True)
    reader = Reader(FOLDER / name)
    assert [line["event"] for line in reader.journal() if line["event"] in ("start", "resume")] == [
        "start",
        "resume",
    ]
    assert [line["metrics"]["val_loss"] for line in reports(reader)] == [0.5, 0.25, "NaN", 0.75, 0.5]
    assert reports(reader)[-1]["stop"]["text"] == "no improvement over 0.25 for 3 reports"


def test_a_dict_is_filled_with_the_very_values_and_the_run_goes_on(tmp_path, make):
    shutil.copytree(FOLDER / "plain", tmp_path / "run")
    state = make.plain_state()
    rules = {**make.RULES, "stop": Patience(5)}
    with stopctl.Run(tmp_path / "run", state=state, resume="require", **rules) as run:
        assert run.resumed.epoch == 5
        assert state["w"].tolist() == [[17.5, 18.5, 19.5], [20.5, 21.5, 22.5]]  # 5 epochs, 28 / 8 each
        kinds, words = state["kinds"], state["words"]
        assert (type(kinds["half"]), kinds["half"], kinds["complex"].tolist()) == (np.float16, 0.5, [1 + 2j])
        assert (kinds["empty"].shape, kinds["fortran"].flags.f_contiguous) == ((0, 3), True)
        assert words == OrderedDict(
            none=None, yes=True, text="ü", raw=b"\x00\xff", pair=(1, [2.5, float("inf")])
        )
        assert (type(words), type(state["counted"]), state["counted"]) == (OrderedDict, Counter, {3: 2, 5: 1})
        assert (run.progress.best, run.progress.best_epoch, run.progress.step) == (0.25, 2, 10)
        assert list(run.epochs(7)) == [6, 7]
        assert run.restore_best().epoch == 2
    assert (state["w"][0, 0], run.notes) == (7.0, {"seed": 0})


def test_a_finished_run_stays_finished(tmp_path, make):
    shutil.copytree(FOLDER / "plain", tmp_path / "run")
    with stopctl.Run(tmp_path / "run", state=make.plain_state(), **make.RULES) as run:
        assert list(run.epochs(9)) == []
        assert str(run.stopped) == "no improvement over 0.25 for 3 reports"


def test_a_run_that_was_saved_inside_an_epoch_goes_on_there(tmp_path, make):
    shutil.copytree(FOLDER / "plain", tmp_path / "run")
    for info in Reader(tmp_path / "run").list().good:
        if info.epoch == 5:
            shutil.rmtree(info.path)
    state = make.plain_state()
    with stopctl.Run(tmp_path / "run", state=state, **make.RULES) as run:
        assert (run.resumed.epoch, run.resumed.step) == (4, 9)
        for epoch in run.epochs(5):
            for rows in run.batches(stopctl.Indices(8, batch_size=4, seed=1)):
                state["w"] = state["w"] + np.float32(rows.sum()) / 8
                assert (epoch, run.batch) == (5, 2)
    assert state["w"][0, 0] == 17.5


@pytest.mark.parametrize("name", ["torch", "tf"])
def test_the_frameworks_load_and_resume_them(name, tmp_path, make):
    adapter = importlib.import_module(f"stopctl_{name}")
    shutil.copytree(FOLDER / name, tmp_path / "run")

    def weights(model):
        values = model.state_dict().values() if name == "torch" else model.variables
        return [np.asarray(value).tobytes() for value in values]

    def saved(which):
        _, components = choose(FOLDER / name, which)
        leaves = [leaf for leaf in components["model"].values() if isinstance(leaf, Leaf)]
        return [leaf_array(leaf).tobytes() for leaf in leaves]

    parts = getattr(make, f"{name}_parts")()
    adapter.load(FOLDER / name, model=parts["model"], which="best")
    assert weights(parts["model"]) == saved("best")
    parts = getattr(make, f"{name}_parts")()
    with adapter.Run(tmp_path / "run", **parts, **make.RULES, resume="require") as run:
        assert list(run.epochs(9)) == []
        assert weights(parts["model"]) == saved("latest")
        assert run.restore_best().epoch == 2
    assert weights(parts["model"]) == saved("best")
