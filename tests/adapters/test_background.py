"""Saves in the background, in one column for each adapter: nothing but the waiting is different."""

from __future__ import annotations

import os
import signal

import pytest
import torch  # noqa: F401  # before TensorFlow, where both live in one process

from adapters.cases import CASES
from stopctl import Every, OnBest, Patience, Preempted
from stopctl.store import Reader
from support.brake import Brake, finished

VALUES = [0.5, 0.3, 0.4, 0.2, 0.6, 0.6, 0.6, 0.6]
MODES = [True, "overlap"]


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    return request.param


def train(work, directory, epochs, *, until=None, **settings):
    """Train over VALUES, or leave the loop in the middle of epoch ``until`` + 1."""
    settings = {"stop": None, "save": Every(epochs=1), "keep": None, **settings}
    with work.Run(directory, **work.given(), **settings) as run:
        for epoch in run.epochs(epochs):
            work.train(epoch)
            if until is not None and epoch > until:
                break
            run.report(val_loss=VALUES[epoch - 1])
    return run


def files(directory):
    """The bytes of every tensor file."""
    return {
        info.name: (info.path / "state.safetensors").read_bytes() for info in Reader(directory).list().good
    }


@pytest.mark.parametrize("mode", MODES)
def test_checkpoints_are_the_same_to_the_last_bit(case, tmp_path, mode):
    straight = case()
    train(straight, tmp_path / "straight", 5)
    beside = case()  # now, as it seeds the generators
    train(beside, tmp_path / "beside", 5, async_save=mode)
    assert beside.everything() == straight.everything()
    assert files(tmp_path / "beside") == files(tmp_path / "straight")


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_is_the_same_run(case, tmp_path, mode):
    straight = case()
    train(straight, tmp_path / "straight", 6)
    train(case(), tmp_path / "resumed", 6, until=3, async_save=mode)
    again = case()
    run = train(again, tmp_path / "resumed", 6, async_save=mode)
    assert run.resumed.epoch == 3
    assert again.everything() == straight.everything()


@pytest.mark.parametrize("mode", MODES)
def test_restore_best_brings_back_the_weights_that_were_judged(case, tmp_path, mode):
    work, seen = case(), {}
    settings = {"stop": Patience(2), "save": OnBest(), "async_save": mode}
    with work.Run(tmp_path, **work.given(), **settings) as run:
        for epoch in run.epochs(50):
            work.train(epoch)
            run.report(val_loss=VALUES[epoch - 1])
            seen[epoch] = work.everything()
        assert (run.restore_best().epoch, work.everything()) == (4, seen[4])
        assert (run.restore_latest().epoch, work.everything()) == (6, seen[6])


@pytest.mark.parametrize("mode", MODES)
def test_training_beside_a_save_does_not_change_it(case, tmp_path, monkeypatch, mode):
    work = case()
    brake = Brake(monkeypatch)
    seen = {}
    with work.Run(tmp_path, **work.given(), stop=None, keep=None, async_save=mode) as run:
        for epoch in run.epochs(3):
            work.train(epoch)
            if epoch > 1:
                assert brake.reached()
                brake.release()
                finished()
            run.report(val_loss=1.0)
            seen[epoch] = work.weights()
    for epoch in (1, 2, 3):
        work.load(tmp_path, f"epoch-{epoch:04}-step-000000000-w0001")
        assert work.weights() == seen[epoch]


@pytest.mark.parametrize("mode", MODES)
def test_sigterm_saves_and_raises(case, tmp_path, mode):
    work = case()
    with pytest.raises(Preempted), work.Run(tmp_path, **work.given(), async_save=mode) as run:
        for epoch in run.epochs(9):
            work.train(epoch)
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            run.report(val_loss=1.0)
    assert [info.epoch for info in run.checkpoints] == [1, 2]
    straight = case()
    train(straight, tmp_path / "straight", 3)
    resumed = case()
    assert train(resumed, tmp_path, 3).resumed.epoch == 2
    assert resumed.everything() == straight.everything()
