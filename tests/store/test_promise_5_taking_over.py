"""A run taken from its writer: that one saves, deletes and journals no more, whenever it wakes up."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stopctl.core.errors import LockedError, NotARunError, SaveError, SettingError
from stopctl.store import CheckpointInfo, Files, Reader, Store, unlock
from stopctl.store.lock import _held
from support.recorder import Op, Recorder

Save = Callable[..., CheckpointInfo]
ROOT = Path(__file__).parents[2]
TAKEN = r"has been (taken over by a later opening|opened by writer \d+)"


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    """What old_writer() made this process forget."""
    yield
    _held.clear()


def old_writer(run: Path, files: Files | None = None) -> Store:
    """A store as another process would have it: this one does not know that it holds the lock."""
    store = Store.lock(run, files=files or Recorder())
    store.begin({})
    _held.clear()
    return store


def taken(run: Path) -> Store:
    store = Store.lock(run, take_over=True)
    store.begin({})
    return store


def tree(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_the_new_writer_goes_on_and_the_old_one_can_change_nothing_more(
    run: Path, save: Save, check: Any
) -> None:
    old = old_writer(run)
    names = [save(old, number).name for number in (1, 2)]
    new = taken(run)
    assert new.meta["writer"] == 2
    assert (old.lost, new.lost) == (True, False)
    save(new, 3)
    before = tree(run)
    calls: list[Callable[[], Any]] = [
        lambda: save(old, 4),
        lambda: old.delete([names[0]], guarded=()),
        lambda: old.set_aside(names[0], "why"),
        lambda: old.append("report"),
    ]
    for call in calls:
        with pytest.raises(SaveError, match=TAKEN):
            call()
    assert tree(run) == before
    old.close()
    assert tree(run) == before
    save(new, 5)
    check(new, {1, 2, 3, 5})
    with pytest.raises(LockedError):
        Store.lock(run)
    new.close()


def test_a_free_run_is_just_opened(run: Path, store: Store) -> None:
    store.close()
    number = (run / "run.lock").stat().st_ino
    taken(run).close()
    assert (run / "run.lock").stat().st_ino == number


def test_inside_one_process_each_gives_back_its_own(run: Path, store: Store, save: Save, check: Any) -> None:
    new = taken(run)
    assert (store.lost, new.lost) == (True, False)
    with pytest.raises(SaveError, match=TAKEN):
        save(store, 1)
    store.close()
    with pytest.raises(LockedError):
        Store.lock(run)
    save(new, 1)
    check(new, {1})
    new.close()
    Store.lock(run).close()


def test_a_save_that_sleeps_before_its_rename_never_appears(run: Path, save: Save, check: Any) -> None:
    new: list[Store] = []
    files = Recorder()
    old = old_writer(run, files)
    for number in (1, 2):
        save(old, number)

    def hook(index: int, op: Op) -> None:
        if op.name == "rename" and op.paths[1].name.startswith("epoch-0003"):
            files.hook = None
            new.append(taken(run))

    files.hook = hook
    with pytest.raises(SaveError, match=r"saving epoch-0003.* No such file"):
        save(old, 3)
    check(new[0], {1, 2})
    save(new[0], 3)
    check(new[0], {1, 2, 3})
    assert not [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]
    old.close()
    new[0].close()


def test_a_new_writer_that_sleeps_anywhere_while_the_old_one_saves_leaves_one_truth(
    tmp_path: Path, save: Save, check: Any
) -> None:
    files = Recorder()
    old_writer(tmp_path / "whole").append("still open")
    new = Store.lock(tmp_path / "whole", take_over=True, files=files)
    new.begin({})
    assert len(files.ops) > 25
    for place in range(len(files.ops)):
        run = tmp_path / str(place)
        old = old_writer(run)
        save(old, 1)
        there: set[int] = {1}
        waking = Recorder()

        def hook(index: int, op: Op, old: Store = old, place: int = place, there: set[int] = there) -> None:
            if index == place:
                try:
                    save(old, 2)
                    there.add(2)
                except SaveError:
                    pass

        waking.hook = hook
        new = Store.lock(run, take_over=True, files=waking)
        new.begin({})
        with pytest.raises(SaveError, match=TAKEN):
            save(old, 3)
        check(new, there)
        new.close()


def test_of_two_that_take_over_at_once_one_has_it(tmp_path: Path, save: Save) -> None:
    """The second does all it does while the first stands before any of its operations."""
    files = Recorder()
    old_writer(tmp_path / "whole").append("still open")
    Store.lock(tmp_path / "whole", take_over=True, files=files).begin({})
    for place in range(len(files.ops)):
        run = tmp_path / str(place)
        save(old_writer(run), 1)
        second: list[Store] = []

        def hook(
            index: int, op: Op, run: Path = run, place: int = place, second: list[Store] = second
        ) -> None:
            if index == place:
                _held.clear()
                second.append(taken(run))
                _held.clear()

        _held.clear()
        working = []
        try:
            first = Store.lock(run, take_over=True, files=Recorder(hook))
            first.begin({})
            save(first, 2)
            working.append(first)
        except (SaveError, LockedError):
            pass
        try:
            save(second[0], 3)
            working.append(second[0])
        except SaveError:
            pass
        assert len(working) == 1
        assert {info.epoch for info in Reader(run).list().good} == {
            1,
            2 if working[0] is not second[0] else 3,
        }
        _held.clear()


def test_two_that_empty_the_trash_at_once_do_not_disturb_each_other(
    tmp_path: Path, save: Save, check: Any
) -> None:
    for place in range(6):
        run = tmp_path / str(place)
        files = Recorder()
        old = old_writer(run, files)
        names = [save(old, number).name for number in (1, 2)]
        seen, new = iter(range(1000)), []

        def hook(
            index: int, op: Op, seen: Any = seen, run: Path = run, place: int = place, new: Any = new
        ) -> None:
            if (
                op.name in ("entries", "unlink", "rmdir")
                and ".trash" in str(op.paths[0])
                and next(seen) == place
            ):
                new.append(taken(run))

        files.hook = hook
        old.delete(names[:1], guarded=())
        files.hook = None
        (opened,) = new or [taken(run)]
        check(opened, {2})
        assert [path.name for path in (run / "checkpoints").iterdir()] == [names[1]]
        opened.close()


def test_a_take_over_that_was_killed_leaves_nothing_behind(run: Path, save: Save, check: Any) -> None:
    save(old_writer(run), 1)
    (run / ".tmp-run.lock").touch()
    new = taken(run)
    check(new, {1})
    new.close()
    assert not (run / ".tmp-run.lock").exists()
    (run / "run.json").unlink()
    (run / "checkpoints").rename(run.parent / "away")
    (run / "journal.jsonl").unlink()
    (run / ".tmp-run.lock").touch()
    Store.lock(run).close()  # a start that was killed, not somebody's files


def test_a_writer_number_is_never_given_twice(run: Path, store: Store, save: Save) -> None:
    save(store, 1)
    store.close()
    (run / "run.json").write_text(json.dumps(store.meta | {"writer": 0}))  # an old copy that was put back
    store = Store.lock(run)
    assert store.begin({}) == 2
    store.close()


def test_unlock_takes_the_run_and_gives_it_back(run: Path, save: Save, check: Any) -> None:
    old = old_writer(run)
    save(old, 1)
    with pytest.raises(LockedError):
        Store.lock(run)
    assert unlock(run) == 2
    with pytest.raises(SaveError, match=TAKEN):
        save(old, 2)
    store = Store.lock(run)
    assert store.begin({}) == 3
    check(store, {1})
    assert [line["event"] for line in store.journal()] == ["unlock"]
    store.close()


def test_unlock_makes_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(NotARunError):
            unlock(path)
    assert list(tmp_path.iterdir()) == []


def test_every_line_says_whose_it_is(run: Path) -> None:
    old = old_writer(run)
    old.append("report")
    new = taken(run)
    new.append("report")
    assert [line["writer"] for line in new.journal()] == [1, 2]
    new.close()


SAVING = """
try:
    for number in range(2, 10**6):
        save(number)
except SaveError as error:
    print(error, flush=True)
"""


def test_a_real_process_that_saves_and_saves_loses_the_run(
    run: Path, process: Callable[[str], subprocess.Popen[str]]
) -> None:
    holder = process(SAVING)
    new = taken(run)
    there = new.list()
    assert there.damaged == ()
    told, _ = holder.communicate()
    assert "saving" in told or "saves no more" in told
    assert new.list() == there
    new.commit({"a": 0}, state=None, epoch=10**6, step=10**6, seconds=0, value=None)
    for info in new.list().good[-3:]:
        new.load(info)
    new.close()


@pytest.mark.parametrize("wrong", [None, "fsync", True])
def test_an_unknown_durability_is_refused(run: Path, wrong: Any) -> None:
    with pytest.raises(SettingError, match="write 'full' or 'process'"):
        Store.lock(run, durability=wrong)
    assert not run.exists()
