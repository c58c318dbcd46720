"""The checkpoints of an opened run: told, pruned, set aside."""

from __future__ import annotations

import errno
import os

import pytest

from stopctl import Best, Controller, Every, Last, Maximize, Run
from stopctl.core.errors import SaveError
from stopctl.run.checkpoints import Checkpoints
from stopctl.store import Reader, Store
from stopctl.store.files import Files
from support.trees import leaf


@pytest.fixture
def store(tmp_path):
    with_lock = Store.lock(tmp_path / "run", durability="process")
    with_lock.begin({})
    yield with_lock
    with_lock.close()


def settings(tmp_path, **more):
    return Run(tmp_path / "other", state={"w": 0}, goal=Maximize("acc"), **more)._settings


def commit(checkpoints, number, value):
    facts = {"state": {}, "epoch": number, "step": number, "seconds": 0.0, "value": value}
    return checkpoints.commit(lambda: {"w": leaf()}, facts)


def best_value(checkpoints):
    """What the machine is told."""
    controller = Controller(goal=Maximize("acc"), stop=None, save=None)
    checkpoints.tell_best(controller)
    return controller.progress.saved_best


def epochs(checkpoints):
    return [info.epoch for info in checkpoints.infos(None)]


def test_the_best_value_is_marked_wherever_it_stands(store, tmp_path):
    checkpoints = Checkpoints(store, settings(tmp_path), [], None)
    for number, value in enumerate([0.5, 0.7, None, 0.7, float("nan")], 1):
        commit(checkpoints, number, value)
    assert [info.is_best for info in checkpoints.infos(0.7)] == [False, True, False, True, False]
    assert not any(info.is_best for info in checkpoints.infos(0.9))
    assert not any(info.is_best for info in checkpoints.infos(None))
    assert best_value(checkpoints) == 0.7


def test_what_is_not_kept_goes_but_never_what_was_resumed_from(store, tmp_path):
    first = commit(Checkpoints(store, settings(tmp_path), [], None), 1, 0.1)
    checkpoints = Checkpoints(store, settings(tmp_path, keep=Last(1) | Best(1)), [first], first)
    for number, value in enumerate([0.9, 0.2, 0.3], 2):
        commit(checkpoints, number, value)
        checkpoints.prune()
    assert epochs(checkpoints) == [1, 2, 4]
    assert [info.epoch for info in store.list().good] == [1, 2, 4]


def test_without_a_keep_rule_all_stay(store, tmp_path):
    checkpoints = Checkpoints(store, settings(tmp_path, keep=None), [], None)
    for number in range(1, 6):
        commit(checkpoints, number, 0.1)
        checkpoints.prune()
    assert epochs(checkpoints) == [1, 2, 3, 4, 5]


def test_a_delete_that_fails_leaves_them_counted(store, tmp_path, monkeypatch):
    checkpoints = Checkpoints(store, settings(tmp_path, keep=Last(1)), [], None)
    for number in range(1, 4):
        commit(checkpoints, number, 0.1)

    def fail(names, *, guarded):
        raise SaveError("deleting failed")

    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", fail)
        with pytest.raises(SaveError):
            checkpoints.prune()
    assert epochs(checkpoints) == [1, 2, 3]
    checkpoints.prune()
    assert epochs(checkpoints) == [1, 3]  # the newest, and the first of the best


def test_a_damaged_one_counts_no_more(store, tmp_path):
    checkpoints = Checkpoints(store, settings(tmp_path), [], None)
    infos = [commit(checkpoints, number, value) for number, value in ((1, 0.5), (2, 0.9))]
    checkpoints.set_aside(infos[1].name, "rotten")
    assert epochs(checkpoints) == [1]
    assert best_value(checkpoints) == 0.5
    checkpoints.set_aside(infos[0].name, "rotten")
    assert best_value(checkpoints) is None


STUCK = pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM])


@pytest.fixture
def fixed(monkeypatch):
    """Has directories of these names, which cannot be renamed."""
    names = []
    rename = Files.rename

    def renamed(files, source, target):
        for code, name in names:
            if source.name.startswith(name):
                raise OSError(code, os.strerror(code), str(source))
        return rename(files, source, target)

    monkeypatch.setattr(Files, "rename", renamed)
    return names


def train(directory, n, **more):
    settings = {"stop": None, "keep": Last(2), "save": Every(epochs=1), "durability": "process"}
    with Run(directory, state={"w": 0}, **settings, **more) as run:
        for epoch in run.epochs(n):
            run.report(val_loss=1.0 / epoch)
    return run


def warned(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@STUCK
@pytest.mark.parametrize("mode", [False, True])
def test_one_that_cannot_be_renamed_stops_neither_training_nor_the_pruning_of_others(
    tmp_path, fixed, caplog, code, mode
):
    fixed.append((code, "epoch-0001"))
    run = train(tmp_path, 5, async_save=mode)
    assert [info.epoch for info in run.checkpoints] == [1, 4, 5]
    path = tmp_path / "checkpoints" / run.checkpoints[0].name
    assert warned(caplog) == [
        f"{path} cannot be renamed ({os.strerror(code)}), so it is not deleted; the others are, and training goes on"
    ]
    fixed.clear()
    assert [info.epoch for info in train(tmp_path, 6).checkpoints] == [5, 6]


@STUCK
def test_a_damaged_one_that_cannot_be_renamed_is_passed_over(tmp_path, fixed, caplog, code):
    newest = train(tmp_path, 3).checkpoints[-1]
    (newest.path / "state.json").write_bytes(b"{}")
    fixed += [(code, "epoch-0003"), (code, ".tmp-epoch-0009")]
    left = tmp_path / "checkpoints" / ".tmp-epoch-0009-step-000000009-w0001-0123abcd"
    left.mkdir()
    for _ in range(2):
        caplog.clear()
        with Run(tmp_path, state={"w": 0}, durability="process") as run:
            assert run.resumed.epoch == 2
        (text,) = warned(caplog)
        assert text.startswith(f"{newest.name} is damaged, and passed over as it cannot be renamed")
    assert [line["event"] for line in Reader(tmp_path).journal()].count("set_aside") == 0
    assert train(tmp_path, 4).checkpoints[-1].epoch == 4


def test_any_other_error_of_a_rename_is_a_failed_save(tmp_path, fixed):
    fixed.append((errno.EIO, "epoch-0001"))
    with pytest.raises(SaveError, match="deleting checkpoints failed"):
        train(tmp_path, 5)
