"""Where a run stands, before anything is built."""

from __future__ import annotations

import shutil

import pytest

from stopctl import DamagedError, Every, NotARunError, Run, peek


def train(directory, epochs, until=None, save=None, **settings):
    with Run(directory, state={"w": 0}, stop=None, save=save or Every(epochs=1), **settings) as run:
        for epoch in run.epochs(epochs):
            run.step(10)
            run.report(val_loss=abs(epoch - 2))
            if epoch == until:
                break


def test_where_a_run_would_start_there_is_nothing(tmp_path):
    for directory in (tmp_path / "none", tmp_path):
        assert peek(directory) == (0, 0, None, {})
    with Run(tmp_path, state={"w": 0}, notes={"a": 1}):
        assert peek(tmp_path) == (0, 0, None, {}), "opened, nothing saved"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    with pytest.raises(NotARunError, match="is no run"):
        peek(tmp_path / "mine")


def test_the_newest_good_checkpoint_says_where_it_goes_on_even_beside_its_writer(tmp_path):
    with Run(tmp_path, state={"w": 0}, stop=None, save=Every(epochs=2), notes={"a": 1}) as run:
        for epoch in run.epochs(6):
            run.report(val_loss=5 - epoch)
            assert peek(str(tmp_path)).epoch == epoch // 2 * 2
            if epoch == 5:
                break
    assert peek(tmp_path) == (4, 0, 1.0, {"a": 1}), "the report of the fifth is not in it"


def test_the_notes_are_those_that_trained(tmp_path):
    train(tmp_path, 4, until=2, notes={"lr": 0.1})
    train(tmp_path, 2, notes={"lr": 0.3})  # finished: it trains nothing
    assert peek(tmp_path).notes == {"lr": 0.1}
    train(tmp_path, 4, notes={"lr": 0.2, "more": (1, 2)})
    train(tmp_path, 4, notes={"lr": 0.2, "more": (1, 2)})
    assert peek(tmp_path) == (4, 40, 0.0, {"lr": 0.2, "more": [1, 2]})


def test_what_opening_refuses_is_refused(tmp_path):
    train(tmp_path, 2)
    for info in (tmp_path / "checkpoints").iterdir():
        (info / "manifest.json").write_text("{}")
    with pytest.raises(DamagedError, match=r"no checkpoint is good: epoch-0001.*manifest"):
        peek(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(DamagedError, match="no checkpoint is good: epoch-0002"):
        peek(tmp_path)
