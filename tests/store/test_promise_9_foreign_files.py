"""Files that are not ours are never touched."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stopctl.store import CheckpointInfo, Store
from support.recorder import Op, Recorder

Save = Callable[..., CheckpointInfo]


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
        folder / ".tmp-mine" / "weights.bin", folder / ".trash-mine" / "deep" / "x", folder / "best" / "manifest.json",
        folder / "epoch-1" / "state.json",
    ]  # fmt: skip
    for path in mine:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"mine: {path.name}")
    (folder / ".tmp-link").symlink_to(run / "sub")
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
    assert (folder / ".tmp-link").is_symlink()
    left = [line for line in store.journal() if line["event"] == "left"]
    assert [(line["directory"], line["names"]) for line in left] == [
        (".tmp-mine", ["weights.bin"]), (".trash-mine", ["deep"]),
    ] * 3  # fmt: skip


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
