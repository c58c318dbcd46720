"""Choosing a checkpoint to load, without the lock."""

from __future__ import annotations

import pytest

from stopctl import DamagedError, Last, NotARunError, Run, SettingError
from stopctl.runs.choose import choose
from stopctl.store import Reader


@pytest.fixture
def directory(tmp_path):
    state = {"weight": 0}
    with Run(tmp_path, state=state, stop=None, keep=None) as run:
        for epoch in run.epochs(4):
            state["weight"] = epoch
            run.report(val_loss=[0.5, 0.1, float("nan"), 0.3][epoch - 1])
            if epoch == 1:
                run.save("first")
    return tmp_path


def damage(directory, epoch):
    info = next(i for i in Reader(directory).list().good if i.epoch == epoch and not i.label)
    data = bytearray((info.path / "state.json").read_bytes())
    data[-10] ^= 1
    (info.path / "state.json").write_bytes(data)
    return info.name


@pytest.mark.parametrize(
    ("which", "epoch", "is_best"),
    [
        ("best", 2, True),
        ("latest", 4, False),
        ("first", 1, False),
        ("epoch-0003-step-000000000-w0001", 3, False),
    ],
)
def test_which(directory, which, epoch, is_best):
    info, components = choose(directory, which)
    assert (info.epoch, info.is_best, components["weight"]) == (epoch, is_best, epoch)
    _, some = choose(directory, which, only={"weight"})
    assert some == {"weight": epoch}


def test_it_reads_beside_a_writer(directory):
    with Run(directory, state={"weight": 0}, stop=None):
        assert choose(directory)[0].epoch == 2


def test_a_damaged_best_is_told_and_the_next_taken(directory, caplog):
    name = damage(directory, 2)
    info, components = choose(directory)
    assert (info.epoch, info.is_best, components["weight"]) == (4, False, 4)
    assert f"{name} is damaged" in caplog.text


def test_a_damaged_named_one_is_an_error(directory):
    name = damage(directory, 3)
    with pytest.raises(DamagedError, match=name):
        choose(directory, name)


def test_what_is_not_there_lists_what_is(directory):
    with pytest.raises(SettingError) as caught:
        choose(directory, "last")
    assert "has no checkpoint for which='last'; it has: epoch-0001" in str(caught.value)
    assert ", first, " in str(caught.value)


def test_without_a_finite_value_there_is_no_best(tmp_path):
    with Run(tmp_path, state={"w": 0}, stop=None) as run:
        for _ in run.epochs(1):
            run.report(val_loss=float("nan"))
    with pytest.raises(SettingError, match="has no checkpoint with a finite value for which='best'"):
        choose(tmp_path)


def test_no_run_is_an_error(tmp_path):
    with pytest.raises(NotARunError):
        choose(tmp_path / "nowhere")


def test_one_that_is_deleted_between_looking_and_loading_is_no_damage(tmp_path, monkeypatch, caplog):
    path = tmp_path / "run"
    state = {"weight": 0.0}
    with Run(path, state=state, stop=None, keep=Last(1)) as run:
        for epoch in run.epochs(3):
            state["weight"] = float(epoch)
            if epoch == 2:
                looked = Reader(path).list()  # epoch 1, which goes with the next save
            run.report(val_loss=1 / epoch)
    list_now, listings = Reader.list, iter([looked])
    monkeypatch.setattr(Reader, "list", lambda self: next(listings, None) or list_now(self))
    info, components = choose(path, "latest")
    assert (info.epoch, components["weight"]) == (3, 3.0)
    assert "damaged" not in caplog.text
