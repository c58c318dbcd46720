"""The checkpoints of an opened run: told, pruned, set aside."""

from __future__ import annotations

import pytest

from stopctl import Best, Controller, Last, Maximize, Run
from stopctl.core.errors import SaveError
from stopctl.run.checkpoints import Checkpoints
from stopctl.store import Store
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
