"""Errors that the operating system makes: a file system that is full or read-only, and limits of a process."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stopctl.core.errors import SaveError
from stopctl.store import FILES, Files, Reader, Store
from support.faults.counts import count
from support.faults.limited import SIZE
from support.faults.promises import Expected, begun, commit, survives

ROOT = Path(__file__).parents[3]


def test_limits_of_the_process_are_told_and_leave_all_that_was_there(scratch: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "faults" / "limited.py"), str(scratch / "run")],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 saved", "2 EFBIG", "3 EMFILE", "4 saved"]
    saved = frozenset({1, 4})
    survives(scratch / "run", Expected(must=saved, may=saved, told=saved), size=SIZE)
    count("real I/O errors", 2)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB and 100 names, in memory."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux to mount a small file system")
    at = tmp_path / "small"
    at.mkdir()
    try:
        _run("mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=100", "tmpfs", str(at))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no tmpfs can be mounted: {error.stderr.strip()}")
    yield at
    _run("umount", "-l", str(at))


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


class Unasked(Files):
    """A file system that does not say how much is free, as some do not: only writing tells."""

    def free(self, path: Path) -> None:
        return None


def fill(store: Store, size: int) -> tuple[set[int], SaveError]:
    """Save until that fails; what was saved, and the error."""
    saved: set[int] = set()
    with pytest.raises(SaveError) as caught:
        for number in range(1, 100):
            commit(store, number, size=size)
            saved.add(number)
    return saved, caught.value


def all_is_there(run: Path, numbers: set[int], size: int = 96) -> None:
    """Readable where it is; and it can be deleted from; and, on a larger disk, every promise is kept."""
    assert {info.epoch for info in Reader(run).list().good} == numbers
    store = begun(run, FILES)
    store.delete([info.name for info in store.list().good if info.epoch == min(numbers)], guarded=())
    store.close()
    left = frozenset(numbers - {min(numbers)})
    copy = run.parents[1] / "copy"
    shutil.copytree(run, copy)
    survives(copy, Expected(must=left, may=left), size=size)


def test_a_full_disk_takes_nothing_and_can_be_deleted_from(small: Path) -> None:
    run, size = small / "run", 300_000
    store = begun(run, Unasked())
    saved, error = fill(store, size)
    assert isinstance(error.__cause__, OSError)
    assert error.__cause__.errno == errno.ENOSPC
    assert saved == {1, 2, 3, 4, 5, 6}
    (small / "others").write_bytes(b"x" * FILES.free(small))  # nothing at all is left
    names = {info.epoch: info.name for info in store.list().good}
    store.delete([names[1]], guarded=())
    commit(store, 50, size=size)
    store.close()
    (small / "others").unlink()
    all_is_there(run, saved - {1} | {50}, size)
    count("real I/O errors")


def test_a_save_that_has_no_room_is_not_begun(small: Path) -> None:
    run, size = small / "run", 300_000
    store = begun(run, FILES)
    saved, error = fill(store, size)
    assert error.__cause__ is None, "it was seen before anything was written"
    assert "are free" in str(error)
    assert saved == {1, 2, 3}
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")] == []
    store.close()
    all_is_there(run, saved, size)
    count("real I/O errors")


def test_a_disk_without_a_free_name_takes_nothing(small: Path) -> None:
    run = small / "run"
    store = begun(run, FILES)
    saved, error = fill(store, 96)
    assert isinstance(error.__cause__, OSError)
    assert error.__cause__.errno == errno.ENOSPC
    assert len(saved) > 20
    store.close()
    all_is_there(run, saved)
    count("real I/O errors")


def test_a_disk_that_turns_read_only_takes_nothing(small: Path) -> None:
    run = small / "run"
    store = begun(run, FILES)
    names = {number: commit(store, number).name for number in (1, 2, 3, 4, 5)}
    store.close()
    _run("mount", "-o", "remount,ro", str(small))
    with pytest.raises(SaveError) as caught:
        begun(run, FILES)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EROFS
    assert [info.name for info in Reader(run).list().good] == list(names.values())
    _run("mount", "-o", "remount,rw", str(small))
    all_is_there(run, set(names))
    count("real I/O errors")


def test_a_journal_that_has_no_room_goes_on_when_it_has(small: Path) -> None:
    run = small / "run"
    store = begun(run, Unasked())
    commit(store, 1)
    (small / "others").write_bytes(b"x" * FILES.free(small))
    with pytest.raises(SaveError) as caught:
        for number in range(1000):
            store.append("report", epoch=number, text="x" * 500)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    (small / "others").unlink()
    store.append("report", epoch=1)
    assert next(store.newest_lines())["epoch"] == 1
    store.close()
    survives(run, Expected(must=frozenset({1}), may=frozenset({1})))
    count("real I/O errors")
