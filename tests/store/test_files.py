from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

import pytest

from stopctl.core.errors import StopctlError
from stopctl.store import FILES
from stopctl.store import files as module
from stopctl.store.files import Entry, naming, require_posix


def test_nothing_is_ever_written_over(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("f", "link"):
        with pytest.raises(FileExistsError):
            FILES.create(tmp_path / name)
        with pytest.raises(FileExistsError):
            FILES.mkdir(tmp_path / name)
    assert FILES.exists(tmp_path / "link")
    assert not FILES.exists(tmp_path / "none")


def test_links_and_other_things_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert FILES.size(tmp_path / "f") == 3
    assert FILES.entries(tmp_path) == [
        Entry("d", "directory"), Entry("f", "file"), Entry("link", "other"), Entry("pipe", "other"),
    ]  # fmt: skip
    for name, code in (("link", errno.ELOOP), ("d", errno.EISDIR), ("pipe", errno.EISDIR)):
        with pytest.raises(OSError) as caught:
            FILES.size(tmp_path / name)
        assert caught.value.errno == code
        with pytest.raises(OSError) as caught:
            FILES.open(tmp_path / name)
        assert caught.value.errno == code
    (tmp_path / "to d").symlink_to("d")
    for name, code in (("to d", errno.ELOOP), ("link", errno.ELOOP), ("f", errno.ENOTDIR)):
        with pytest.raises(OSError) as caught:
            FILES.entries(tmp_path / name)
        assert (caught.value.errno, caught.value.filename) == (code, str(tmp_path / name))
    for opening in (FILES.open_append, FILES.open_lock):
        for name, code in (("link", errno.ELOOP), ("d", errno.EISDIR), ("pipe", errno.EISDIR)):
            with pytest.raises(OSError) as caught:
                opening(tmp_path / name)
            assert caught.value.errno == code


def test_a_file_that_is_refused_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    closed: list[int] = []
    real = os.close
    monkeypatch.setattr(os, "close", lambda fd: (closed.append(fd), real(fd)))
    for opening in (FILES.open, FILES.open_append, FILES.open_lock):
        with pytest.raises(OSError, match="not a regular file"):
            opening(tmp_path / "pipe")
    assert len(closed) == 3


def test_files_are_not_inherited(tmp_path: Path) -> None:
    for handle in (
        FILES.create(tmp_path / "a"),
        FILES.open(tmp_path / "a")[0],
        FILES.open_append(tmp_path / "b"),
    ):
        assert not os.get_inheritable(handle.fd)
        FILES.close(handle)


def test_free_space_is_what_this_user_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs(tmp_path)
    free = FILES.free(tmp_path)
    assert free is not None
    assert 0 < free <= found.f_blocks * found.f_frsize

    class Silent:
        f_blocks = f_bavail = f_frsize = 0

    monkeypatch.setattr(os, "statvfs", lambda path: Silent)
    assert FILES.free(tmp_path) is None


def test_naming_leaves_a_name_that_is_there(tmp_path: Path) -> None:
    for given, found in ((None, str(tmp_path)), ("other", "other")):
        with pytest.raises(OSError) as caught, naming(tmp_path):
            raise OSError(errno.EIO, "broken", given)
        assert caught.value.filename == found


def test_windows_is_told_what_works_there() -> None:
    require_posix()
    with pytest.raises(StopctlError, match="need Linux or macOS .* on Windows use Controller"):
        require_posix("win32")


@pytest.mark.parametrize(
    ("code", "fallen_back"), [(None, False), (errno.ENOTSUP, True), (errno.EINVAL, True), (errno.EIO, None)]
)
def test_on_macos_the_drives_cache_is_flushed_where_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, fallen_back: bool | None
) -> None:
    calls = []

    def full_sync(fd: int, what: int) -> None:
        calls.append("full")
        if code is not None:
            raise OSError(code, "broken")

    handle = FILES.create(tmp_path / "f")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(module.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(module.fcntl, "fcntl", full_sync)
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("plain"))
    if fallen_back is None:
        with pytest.raises(OSError, match="broken"):
            FILES.sync(handle)
    else:
        FILES.sync(handle)
    monkeypatch.undo()
    FILES.close(handle)
    assert calls == (["full", "plain"] if fallen_back else ["full"])


def test_a_file_is_told_from_another_of_its_name(tmp_path: Path) -> None:
    handle = FILES.create(tmp_path / "a")
    assert FILES.identity(tmp_path / "none") is None
    assert FILES.identity(handle) == FILES.identity(tmp_path / "a") is not None
    os.rename(tmp_path / "a", tmp_path / "b")
    FILES.close(FILES.create(tmp_path / "a"))
    assert FILES.identity(handle) == FILES.identity(tmp_path / "b") != FILES.identity(tmp_path / "a")
    FILES.close(handle)


def test_without_sync_all_is_the_same_but_the_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(fd: int) -> None:
        raise OSError(errno.EIO, "not to be called")

    monkeypatch.setattr(module, "_fsync", fsync)
    quick = module.without_sync(FILES)
    handle = quick.create(tmp_path / "a")
    quick.write(handle, b"x")
    quick.sync(handle)
    quick.sync_directory(tmp_path)
    quick.close(handle)
    assert (tmp_path / "a").read_bytes() == b"x"
    with pytest.raises(OSError, match="not to be called"):
        FILES.sync_directory(tmp_path)


def test_uncaching_is_an_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = FILES.create(tmp_path / "a")
    FILES.uncache(handle)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    FILES.uncache(handle)
    FILES.close(handle)


@pytest.mark.parametrize("code", [None, errno.EIO, errno.ENOSPC, errno.ENOSYS, errno.EPERM, errno.EINVAL])
def test_writing_back_early_is_asked_for_where_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    """An error that says that there is no such call is none; any other is the save's."""

    def advise(*_: object) -> None:
        raise OSError(code, "refused")

    if code is None:
        monkeypatch.delattr(os, "posix_fadvise", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fadvise", advise, raising=False)
    handle = FILES.create(tmp_path / "f")
    FILES.write(handle, b"abc")
    fails = code in (errno.EIO, errno.ENOSPC)
    with pytest.raises(OSError, match="refused") if fails else contextlib.nullcontext():
        FILES.write_back(handle, 0, 3)
    FILES.close(handle)
    assert (tmp_path / "f").read_bytes() == b"abc"
