"""Files that are not ours are never touched."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stopctl import DamagedError, Run, SaveError
from stopctl.store import CheckpointInfo, Reader, Store, pin
from support.recorder import Op, Recorder

Save = Callable[..., CheckpointInfo]

TRASH = ".trash-epoch-0009-step-000000090-w0001-0a1b2c3d"
"""What a delete that was killed leaves of a checkpoint."""


def snapshot(paths: list[Path]) -> list[tuple[Path, bytes, int]]:
    return [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in paths]


def test_a_whole_life_of_a_run_leaves_them_as_they_were(run: Path, save: Save, check: Any) -> None:
    store = Store.lock(run)
    store.begin({})
    save(store, 1)
    save(store, 2)
    folder = run / "checkpoints"
    mine = [
        run / "notes.txt", run / ".tmp-mine", run / "run.json.bak", run / "sub" / "run.json",
        folder / "notes.txt", folder / ".tmp-mine.txt", folder / ".trash-mine.txt",
        folder / ".tmp-mine" / "state.json", folder / ".trash-mine" / "deep" / "x", folder / TRASH / "weights.bin", folder / "best" / "manifest.json",
        folder / "epoch-1" / "state.json",
    ]  # fmt: skip
    for path in mine:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"mine: {path.name}")
    (folder / ".tmp-link").symlink_to(run / "sub")
    empty = [
        folder / name
        for name in (".tmp-empty", f"{TRASH[:-1]}g", f"{TRASH}.old", ".trash-mine-0a1b2c3d", ".upload-mine")
    ]
    for path in empty:
        path.mkdir()
    before = snapshot(mine)
    store.close()
    for _ in range(2):
        store = Store.lock(run)
        store.begin({})
        store.close()
    store = Store.lock(run)
    store.begin({})
    save(store, 3)
    store.delete([info.name for info in store.list().good[:2]], guarded=())
    check(store, {3})
    store.close()
    assert snapshot(mine) == before
    assert all(path.is_dir() for path in empty)
    assert (folder / ".tmp-link").is_symlink()
    left = [line for line in store.journal() if line["event"] == "left"]
    assert [(line["directory"], line["names"]) for line in left] == [
        (TRASH, ["weights.bin"]),
    ] * 3  # fmt: skip


@pytest.mark.parametrize("name", ["checkpoints", "pins"])
def test_a_directory_that_is_a_link_is_refused_and_nothing_behind_it_is_touched(
    run: Path, save: Save, tmp_path: Path, name: str
) -> None:
    store = Store.lock(run)
    store.begin({})
    info = save(store, 1)
    store.close()
    pin(run, info.name)
    elsewhere = tmp_path / "elsewhere"
    (run / name).rename(elsewhere)
    (run / name).symlink_to(elsewhere)
    (elsewhere / TRASH).mkdir()
    (elsewhere / TRASH / "state.json").write_text("mine")
    before = sorted(elsewhere.rglob("*"))
    meta = (run / "run.json").read_bytes()
    why = rf"{run / name}: is a link, which is not followed: put the directory itself there"
    for refused in (Reader(run).list, lambda: pin(run, info.name), lambda: Run(run, state={}).open()):
        with pytest.raises(DamagedError, match=why):
            refused()
    assert (sorted(elsewhere.rglob("*")), (run / "run.json").read_bytes()) == (before, meta)


def test_checkpoints_that_become_a_link_in_a_run_are_not_swept(run: Path, save: Save, tmp_path: Path) -> None:
    store = Store.lock(run)
    store.begin({})
    infos = [save(store, number) for number in (1, 2)]
    elsewhere = tmp_path / "elsewhere"
    (run / "checkpoints").rename(elsewhere)
    (run / "checkpoints").symlink_to(elsewhere)
    (elsewhere / TRASH).mkdir()
    (elsewhere / TRASH / "state.json").write_text("mine")
    with pytest.raises(DamagedError, match="is a link, which is not followed"):
        store.delete([infos[0].name], guarded=())
    store.close()
    assert (elsewhere / TRASH / "state.json").read_text() == "mine"
    assert (elsewhere / infos[0].name).is_dir()


def test_a_run_is_reached_through_a_link_to_its_own_directory(run: Path, save: Save, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    run.mkdir(exist_ok=True)
    store = Store.lock(tmp_path / "link")
    store.begin({})
    info = save(store, 1)
    store.close()
    assert [one.name for one in Reader(tmp_path / "link").list().good] == [info.name]


def test_a_deleted_checkpoint_keeps_a_foreign_file_in_the_trash_and_the_journal_says_so(
    store: Store, save: Save, check: Any
) -> None:
    first = save(store, 1)
    save(store, 2)
    (first.path / "notes.txt").write_text("mine")
    (first.path / "state.json").rename(first.path / "kept.json")
    (first.path / "state.json").symlink_to("kept.json")
    store.delete([first.name], guarded=())
    check(store, {2})
    (trash,) = (path for path in first.path.parent.iterdir() if path.name.startswith(".trash-"))
    assert sorted(path.name for path in trash.iterdir()) == ["kept.json", "notes.txt", "state.json"]
    assert (trash / "notes.txt").read_text() == "mine"
    line = next(store.newest_lines())
    assert (line["event"], line["directory"]) == ("left", trash.name)
    assert line["names"] == ["kept.json", "notes.txt", "state.json"]


def test_a_directory_that_a_reader_keeps_from_going_is_left_and_told(
    run: Path, save: Save, check: Any
) -> None:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    first = save(store, 1)
    save(store, 2)

    def hook(index: int, op: Op) -> None:
        if op.name == "rmdir":  # as NFS does it: the file a reader has open lives on under another name
            (op.paths[0] / ".nfs01").touch()
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(op.paths[0]))

    files.hook = hook
    store.delete([first.name], guarded=())
    files.hook = None
    check(store, {2})
    assert next(store.newest_lines())["names"] == [".nfs01"]
    store.close()


def test_what_is_held_outlives_its_checkpoint_and_is_swept_by_the_next_opening(run: Path, save: Save) -> None:
    store = Store.lock(run)
    store.begin({})
    first = save(store, 1)
    save(store, 2)
    names = sorted(path.name for path in first.path.iterdir())
    held = [store.hold(first.name) for _ in range(2)]
    store.delete([first.name], guarded=())
    assert [sorted(path.name for path in each.iterdir()) for each in held if each] == [names, names]
    assert [info.epoch for info in store.list().good] == [2]
    assert held[0] is not None
    store.release(held[0])
    with pytest.raises(SaveError, match="linking a checkpoint failed"):
        store.hold(first.name)
    store.close()
    last = Store.lock(run)
    last.begin({})
    last.close()
    assert [path.name[:8] for path in (run / "checkpoints").iterdir()] == ["epoch-00"]
