"""Whatever fails, all earlier checkpoints stay, a typed error says which file and why, and the save stays due."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stopctl.core.errors import SaveError, StopctlError
from stopctl.store import CheckpointInfo, Store
from stopctl.store.commit import RESERVE
from support.recorder import CODES, Op, Recorder, failing

Save = Callable[..., CheckpointInfo]


def begun(run: Path) -> tuple[Store, Recorder]:
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    return store, files


def hidden(run: Path) -> list[str]:
    return [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]


def opened_again_without_leftovers(run: Path) -> None:
    store = Store.lock(run)
    store.begin({})
    store.close()
    assert hidden(run) == []
    assert not (run / ".tmp-run.json").exists()


def count(run: Path, save: Save, action: Callable[[Store], Any]) -> int:
    """How many operations `action` takes where nothing fails."""
    store, files = begun(run)
    save(store, 1)
    save(store, 2)
    before = len(files.ops)
    action(store)
    found = len(files.ops) - before
    store.close()
    return found


def test_the_error_names_the_very_file(run: Path, save: Save) -> None:
    store, files = begun(run)
    for name in ("state.safetensors", "state.json", "manifest.json"):
        for operation in ("create", "write", "sync", "close"):

            def hook(index: int, op: Op, name: str = name, operation: str = operation) -> None:
                if op.name == operation and op.paths[0].name == name:
                    raise OSError(errno.ENOSPC, "No space left on device")

            files.hook = hook
            with pytest.raises(
                SaveError, match=rf"saving epoch-.* failed: .*/{name}: No space left"
            ) as caught:
                save(store, 1)
            assert caught.value.path is not None
            assert caught.value.path.name == name
    files.hook = None
    save(store, 1)
    store.close()


def test_a_failed_sync_is_never_tried_again(run: Path, save: Save) -> None:
    store, files = begun(run)
    for name in ("sync", "sync_directory"):
        files.clear()

        def hook(index: int, op: Op, name: str = name) -> None:
            if op.name == name:
                raise OSError(errno.EIO, "Input/output error")

        files.hook = hook
        with pytest.raises(SaveError):
            save(store, 1)
        assert [op.name for op in files.ops].count(name) == 1
    files.hook = None
    store.close()


def test_a_commit_whose_cleaning_up_fails_as_well_is_swept_later(run: Path, save: Save, check: Any) -> None:
    store, files = begun(run)
    save(store, 1)
    broken = ("write", "unlink", "rmdir", "rename")

    def hook(index: int, op: Op) -> None:
        if op.name in broken:
            raise OSError(errno.EROFS, "Read-only file system")

    files.hook = hook
    with pytest.raises(SaveError, match="Read-only file system"):
        save(store, 2)
    assert len(hidden(run)) == 1
    files.hook = None
    check(store, {1})
    save(store, 2)
    store.close()
    opened_again_without_leftovers(run)


def test_a_checkpoint_that_can_neither_be_confirmed_nor_withdrawn_is_whole(
    run: Path, save: Save, check: Any
) -> None:
    store, files = begun(run)
    save(store, 1)
    names: list[str] = []

    def hook(index: int, op: Op) -> None:
        names.append(op.name)
        if "rename" in names[:-1] and op.name in ("sync_directory", "rename"):
            raise OSError(errno.EIO, "Input/output error")

    files.hook = hook
    with pytest.raises(SaveError, match="Input/output error"):
        save(store, 2)
    files.hook = None
    check(store, {1, 2})
    store.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_commit_leaves_all_that_was(
    tmp_path: Path, save: Save, check: Any, error: type[BaseException]
) -> None:
    total = count(tmp_path / "whole", save, lambda store: save(store, 3))
    for k in range(total):
        run = tmp_path / str(k)
        store, files = begun(run)
        save(store, 1)
        start = len(files.ops)

        def hook(index: int, op: Op, at: int = start + k) -> None:
            if index == at:
                raise error

        files.hook = hook
        with pytest.raises(error):
            save(store, 3)
        files.hook = None
        check(store, {1})
        assert not [name for name in hidden(run) if name.startswith(".tmp-")]
        save(store, 3)
        store.close()


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
@pytest.mark.parametrize("new", [True, False])
def test_an_opening_whose_operation_fails_can_be_repeated(
    tmp_path: Path, save: Save, check: Any, code: int, new: bool
) -> None:
    def prepare(run: Path) -> None:
        if not new:
            store, _ = begun(run)
            save(store, 1)
            unfinished = run / "checkpoints" / ".tmp-epoch-0009-step-000000090-w0001-0a1b2c3d"
            unfinished.mkdir()
            (unfinished / "state.json").touch()
            store.close()

    def opened(run: Path, files: Recorder) -> Store:
        store = Store.lock(run, files=files)
        try:
            store.begin({})
        except BaseException:
            store.close()
            raise
        return store

    def fails(run: Path, files: Recorder) -> bool:
        try:
            opened(run, files).close()
        except SaveError as error:
            return os.strerror(code) in str(error)
        return False

    whole, files = tmp_path / "whole", Recorder()
    prepare(whole)
    store = opened(whole, files)
    ops = list(files.ops)
    store.close()
    assert len(ops) > 20
    swallowed = []
    for k, op in enumerate(ops):
        run = tmp_path / str(k)
        prepare(run)
        if not fails(run, Recorder(failing(k, code))):
            swallowed.append(op.told(tmp_path))
        store = opened(run, Recorder())
        check(store, set() if new else {1})
        save(store, 2)
        store.close()
        opened_again_without_leftovers(run)
    assert swallowed == (["sync_directory ."] if new and code == errno.EACCES else [])


def test_room_is_checked_before_anything_is_written(run: Path, save: Save, check: Any) -> None:
    class Small(Recorder):
        room: int | None = None

        def free(self, path: Path) -> int | None:
            return self.room

    files = Small()
    store = Store.lock(run, files=files)
    store.begin({})
    info = save(store, 1)
    needed = info.bytes - (info.path / "manifest.json").stat().st_size + RESERVE
    files.room = needed - 1
    files.clear()
    with pytest.raises(
        SaveError, match=rf"saving epoch-0002.* needs {needed} bytes, but {needed - 1} are free in "
    ):
        save(store, 2)
    assert files.told(run) == []
    files.room = needed
    save(store, 2)
    check(store, {1, 2})
    store.close()


def test_a_limit_of_the_kernel_is_met_in_mid_write(store: Store, save: Save, check: Any) -> None:
    save(store, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"w": bytes(3000)}
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        with pytest.raises(SaveError, match=r"failed: .*/state\.json: File too large"):
            store.commit(big, state=None, epoch=2, step=2, seconds=0, value=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check(store, {1})
    assert hidden(store.path) == []
    store.commit(big, state=None, epoch=2, step=2, seconds=0, value=None)


def test_a_name_that_is_taken_is_never_overwritten(store: Store, save: Save, check: Any) -> None:
    first = save(store, 1)
    with pytest.raises(
        SaveError, match=r"epoch-0001-step-000000010-w0001 exists already, and .* never overwritten"
    ):
        save(store, 1)
    check(store, {1})
    (first.path.parent / "epoch-0002-step-000000020-w0001").mkdir()  # rename would replace an empty directory
    with pytest.raises(SaveError, match="exists already"):
        save(store, 2)
    assert hidden(store.path) == []
    save(store, 1, label="again")
    assert len(store.list().good) == 2


def test_what_cannot_be_saved_is_refused_before_anything_is_written(run: Path, save: Save) -> None:
    store, files = begun(run)
    files.clear()
    fields: dict[str, Any] = {"state": None, "epoch": 1, "step": 1, "seconds": 0, "value": None}
    for components, more in (
        ({"m": object()}, {}),
        ({}, {"state": {1}}),
        ({}, {"label": "/"}),
        ({}, {"epoch": -1}),
    ):
        with pytest.raises(StopctlError):
            store.commit(components, **(fields | more))
    assert files.ops == []
    store.close()


def test_a_journal_that_cannot_be_written_is_told(run: Path) -> None:
    store, files = begun(run)
    files.hook = failing(len(files.ops) + 1, errno.ENOSPC)  # after a look at the lock
    with pytest.raises(
        SaveError, match=r"writing the journal failed: .*journal\.jsonl: No space left"
    ) as caught:
        store.append("report")
    assert caught.value.path == run / "journal.jsonl"
    store.append("report")
    assert [line["event"] for line in store.journal()] == ["report"]
    store.close()


def test_an_error_without_a_reason_is_told_as_it_is(run: Path) -> None:
    store, files = begun(run)

    def hook(index: int, op: Op) -> None:
        if op.name == "write":
            raise OSError("out of luck")

    files.hook = hook
    with pytest.raises(SaveError, match=r"journal\.jsonl: out of luck"):
        store.append("report")
    files.hook = None
    store.close()
