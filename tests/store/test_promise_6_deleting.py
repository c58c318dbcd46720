"""Deleting is rename to trash, fsync, unlink; the newest, the pinned and the guarded stay, whoever asks."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stopctl.core.errors import DamagedError, OrderError, SaveError, SettingError
from stopctl.store import CheckpointInfo, Store
from stopctl.store import store as module
from support.recorder import Deadly, Op, Recorder, dies

Save = Callable[..., CheckpointInfo]


@pytest.fixture
def names(store: Store, save: Save) -> list[str]:
    return [save(store, number, pinned=number == 2).name for number in (1, 2, 3, 4)]


def test_what_is_not_kept_goes_and_leaves_nothing(
    store: Store, names: list[str], check: Any, run: Path
) -> None:
    store.delete([names[0], names[2], names[0]], guarded=[names[1], names[3]])
    check(store, {2, 4})
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [names[1], names[3]]


@pytest.mark.parametrize(("index", "why"), [(0, "guarded"), (1, "pinned"), (3, "the newest")])
def test_what_is_to_stay_is_refused_and_nothing_is_deleted(
    store: Store, names: list[str], check: Any, index: int, why: str
) -> None:
    with pytest.raises(OrderError, match=f"^{names[index]} is {why}: it is not deleted$"):
        store.delete([names[2], names[index]], guarded={names[0]})
    check(store, {1, 2, 3, 4})


@pytest.mark.parametrize("name", ["epoch-0009-step-000000009-w0001", "../run.json", "/etc", ".tmp-x", ""])
def test_what_is_no_checkpoint_is_refused_and_nothing_is_deleted(
    store: Store, names: list[str], check: Any, name: str
) -> None:
    with pytest.raises(SettingError, match="there is no checkpoint "):
        store.delete([names[0], name], guarded=())
    check(store, {1, 2, 3, 4})


def test_what_is_damaged_may_be_pinned_and_is_not_deleted(store: Store, names: list[str]) -> None:
    (store.path / "checkpoints" / names[0] / "manifest.json").unlink()
    with pytest.raises(DamagedError, match=rf"^{names[0]} is damaged: manifest\.json: No such file"):
        store.delete([names[2], names[0]], guarded=())
    assert (store.path / "checkpoints" / names[2]).exists()


def test_the_newest_is_that_of_the_most_steps(store: Store, save: Save) -> None:
    most = save(store, 1, step=500)
    other = save(store, 2)
    with pytest.raises(OrderError, match="is the newest"):
        store.delete([most.name], guarded=())
    store.delete([other.name], guarded=())


def test_of_two_newest_one_may_go(store: Store, save: Save, check: Any) -> None:
    plain, named = save(store, 1), save(store, 1, label="named")
    with pytest.raises(OrderError, match="is the newest"):
        store.delete([plain.name, named.name], guarded=())
    store.delete([plain.name], guarded=())
    with pytest.raises(OrderError, match="is the newest"):
        store.delete([named.name], guarded=())
    assert [info.label for info in store.list().good] == ["named"]


def test_all_are_renamed_and_synced_before_any_is_emptied(run: Path, save: Save) -> None:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    names = [save(store, number).name for number in (1, 2, 3)]
    files.clear()
    store.delete(names[:2], guarded=())
    told = [line.split()[0] for line in files.told(run)]
    assert told == ["rename", "rename", "sync_directory", *(["unlink"] * 3 + ["rmdir"]) * 2]
    files.clear()
    store.delete([], guarded=())
    assert files.told(run) == []
    store.close()


def test_the_manifest_goes_first(run: Path, save: Save) -> None:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    names = [save(store, number).name for number in (1, 2)]
    files.clear()
    store.delete(names[:1], guarded=())
    assert [line.rpartition("/")[2] for line in files.told(run) if line.startswith("unlink")] == [
        "manifest.json", "state.json", "state.safetensors",
    ]  # fmt: skip
    store.close()


THREAD = "stopctl-delete"


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every checkpoint is so large that training goes on while it is removed."""
    monkeypatch.setattr(module, "LARGE", 1)


def begun(run: Path, files: Recorder, save: Save) -> tuple[Store, list[str]]:
    store = Store.lock(run, files=files)
    store.begin({})
    return store, [save(store, number).name for number in (1, 2, 3)]


def hidden(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir() if path.name.startswith("."))


def test_what_is_large_is_gone_at_once_and_removed_while_training_goes_on(
    large: None, run: Path, save: Save, check: Any
) -> None:
    go = threading.Event()

    def hook(index: int, op: Op) -> None:
        if threading.current_thread().name == THREAD and op.name == "unlink":
            go.wait(60)

    files = Recorder(hook)
    store, names = begun(run, files, save)
    store.delete(names[:2], guarded=())
    check(store, {3})
    assert len(hidden(run)) == 2, "not a file of them is gone yet"
    files.clear()
    threading.Thread(target=lambda: (time.sleep(0.1), go.set())).start()
    save(store, 4)  # waits: the room may be needed
    said = [op.name for op in files.ops if op.name in ("unlink", "rmdir", "mkdir")]
    assert said.index("mkdir") == said.index("rmdir", said.index("rmdir") + 1) + 1, (
        "both are gone before it begins"
    )
    assert hidden(run) == []
    store.close()


def test_the_closing_waits_for_the_trash_and_tells_what_is_not_ours(
    large: None, run: Path, save: Save
) -> None:
    store, names = begun(run, Recorder(), save)
    (run / "checkpoints" / names[0] / "notes.txt").write_text("mine")
    store.delete(names[:2], guarded=())
    store.close()
    (left,) = hidden(run)
    assert [path.name for path in (run / "checkpoints" / left).iterdir()] == ["notes.txt"]
    (line,) = [line for line in Store.lock(run).journal() if line["event"] == "left"]
    assert (line["directory"], line["names"]) == (left, ["notes.txt"])


def test_what_could_not_be_removed_is_tried_again_and_told_at_the_closing(
    large: None, run: Path, save: Save, check: Any
) -> None:
    failing = True

    def hook(index: int, op: Op) -> None:
        if failing and threading.current_thread().name == THREAD and op.name == "unlink":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(op.paths[0]))

    store, names = begun(run, Recorder(hook), save)
    store.delete(names[:1], guarded=())
    save(store, 4)
    check(store, {2, 3, 4})
    failing = False
    store.delete([names[1]], guarded=())
    save(store, 5)
    assert hidden(run) == [], "the first one's, too"
    failing = True
    store.delete([names[2]], guarded=())
    with pytest.raises(SaveError, match=r"closing the run failed: .*manifest.json: Input/output error"):
        store.close()
    assert not store.owned
    again = Store.lock(run)
    again.begin({})
    check(again, {4, 5})
    assert hidden(run) == []
    again.close()


def test_killed_at_any_moment_of_the_removal_nothing_that_stays_is_harmed(
    large: None, tmp_path: Path, save: Save, check: Any
) -> None:
    kills = 0
    for at in range(100):
        run = tmp_path / str(at)

        def life(files: Deadly, run: Path = run) -> None:
            store, names = begun(run, files, save)
            files.armed = True
            store.delete(names[:2], guarded=())
            store.close()

        killed = dies(life, Deadly(at, half=False, thread=THREAD))
        kills += killed
        store = Store.lock(run)
        store.begin({})
        check(store, {3})
        assert hidden(run) == []
        store.close()
        if not killed:
            break
    assert kills > 8


def test_a_forked_child_waits_for_no_removal_of_its_parent(large: None, run: Path, save: Save) -> None:
    go = threading.Event()

    def hook(index: int, op: Op) -> None:
        if threading.current_thread().name == THREAD:
            go.wait(60)

    store, names = begun(run, Recorder(hook), save)
    store.delete(names[:1], guarded=())
    pid = os.fork()
    if pid == 0:
        try:
            store.close()
        finally:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    go.set()
    store.close()
    assert hidden(run) == []
