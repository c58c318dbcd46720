"""Weights that go into objects that are not quite the saved ones: what fits, what is left out, what is called otherwise."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest

from stopctl import MismatchError, Run, SettingError, Weights
from stopctl.runs.weights import averages
from stopctl.store import Leaf


def arrays(**values):
    return {name: np.full(size, float(size), np.float32) for name, size in values.items()}


@pytest.fixture
def parent(tmp_path):
    with Run(
        tmp_path / "a", state={"params": {"body": arrays(w=3, b=1), "head": arrays(w=4)}, "n": 5}, stop=None
    ) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    return tmp_path / "a"


def begin(directory, parent, state, **how):
    with Run(directory, state=state, start_from_run=Weights(parent, **how)):
        pass
    return state


def zeros(**sizes):
    return {name: np.zeros(size, np.float32) for name, size in sizes.items()}


WHOLE = {"body/w", "body/b", "head/w"}


@pytest.mark.parametrize(
    ("given", "how", "taken", "left_out"),
    [
        ({"body": zeros(w=3, b=1), "head": zeros(w=4)}, {}, WHOLE, None),
        (
            {"trunk": zeros(w=3, b=1), "head": zeros(w=4)},
            {"rename": {"body": "trunk"}},
            {"trunk/w", "trunk/b", "head/w"},
            None,
        ),
        (
            {"trunk": zeros(w=3, c=1), "head": zeros(w=4)},
            {"rename": {"body": "trunk", "body/b": "trunk/c"}},
            {"trunk/w", "trunk/c", "head/w"},
            None,
        ),
        (
            {"a": {"body": zeros(w=3, b=1), "head": zeros(w=4)}},
            {"rename": {"": "a"}},
            {"a/body/w", "a/body/b", "a/head/w"},
            None,
        ),
        (
            {"body": zeros(w=3), "head": zeros(w=2)},
            {"strict": False},
            {"body/w"},
            "left out: params/head/w: saved F32 (4,), given F32 (2,); params/body/b: saved, but not given",
        ),
        (
            {"head": zeros(w=4), **{f"new{i}": zeros(w=1) for i in range(7)}},
            {"strict": False},
            {"head/w"},
            "params/new5/w: given, but not saved; and 3 more",
        ),
    ],
)
def test_what_fits_is_taken_and_what_does_not_is_told_in_one_line(
    given, how, taken, left_out, parent, tmp_path, caplog
):
    with caplog.at_level(logging.WARNING, "stopctl"):
        state = begin(tmp_path / "b", parent, {"params": copy.deepcopy(given), "n": 0}, **how)
    found = {path for path, array in named(state["params"]) if (array == array.size).all()}
    assert found == taken
    (line,) = caplog.messages or [""]
    assert (left_out or "") in line
    assert bool(line) == bool(left_out)


def named(tree, path=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from named(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", value


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        (
            {"rename": {"neck": "x"}},
            SettingError,
            r"rename=\{'neck': '...'\}: no such name was saved; there are body/w",
        ),
        (
            {"rename": {"body": "x"}},
            MismatchError,
            "params/x/w: saved, but not given\n.*strict=False takes those that fit",
        ),
        ({"rename": {"": "x"}, "strict": False}, MismatchError, "nothing fits: rename="),
    ],
)
def test_what_cannot_be_is_an_error_that_changes_nothing(how, error, message, parent, tmp_path):
    state = {"params": {"body": arrays(w=2)}}
    with pytest.raises(error, match=f"(?s){message}"):
        begin(tmp_path / "b", parent, state, **how)
    assert state["params"]["body"]["w"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("wrong", [{"strict": 1}, {"rename": "a"}, {"rename": {"a": 1}}])
def test_arguments_are_checked_where_they_are_written(wrong):
    with pytest.raises(SettingError, match="write"):
        Weights("runs/a", **wrong)
    with pytest.raises(SettingError, match="write another run's directory"):
        Weights(3)


def leaf():
    return Leaf("F32", (1,), b"0000")


def test_averages_are_called_as_in_the_model_itself():
    w, n = leaf(), Leaf("I64", (), b"00000000")
    plain = averages(
        {
            "n_averaged": n,
            "module.0.w": w,
            "_metadata": {"": {"version": 1}, "module": {}, "module.0": {"v": 2}},
        }
    )
    assert plain == {"0.w": w, "_metadata": {"": {}, "0": {"v": 2}}}
    for other in ({"0.w": w}, {"n_averaged": n}, {"n_averaged": n, "w": w}, [w]):
        assert averages(other) is other


def test_averages_without_layer_versions_are_plain_too():
    w = leaf()
    assert averages({"n_averaged": w, "module.w": w}) == {"w": w}
