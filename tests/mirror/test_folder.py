"""A mirror on a second disk; what all stores have in common is in test_objects.py."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from stopctl import SettingError
from stopctl.mirror.folder import Folder
from stopctl.mirror.objects import probe
from stopctl.store.files import FILES


def _folder(path):
    return Folder(f"file://{path}", path)


def _all(path):
    return sorted(each.relative_to(path).as_posix() for each in path.rglob("*"))


@pytest.mark.parametrize("operation", ["mkdir", "create", "write", "sync", "link", "sync_directory"])
def test_an_object_is_whole_or_not_there_whatever_fails(tmp_path, monkeypatch, operation):
    store = _folder(tmp_path / "disk")
    (tmp_path / "file").write_bytes(b"x" * 99)
    real = getattr(FILES, operation)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FILES, operation, full, raising=False)
    for write in (
        lambda: store.create("data/a", b"x" * 99),
        lambda: store.upload("data/a", tmp_path / "file"),
    ):
        with pytest.raises(OSError, match="No space"):
            write()
        monkeypatch.setattr(FILES, operation, real)
        assert store.list("data/") in ([], ["data/a"])
        assert all(len(store.read(key, 99)) == 99 for key in store.list("data/"))
        assert not [name for name in _all(tmp_path) if ".tmp-" in name]
        store.delete(["data/a"])
        monkeypatch.setattr(FILES, operation, full)


def test_what_a_killed_upload_leaves_is_not_seen_and_swept(tmp_path, monkeypatch):
    store = _folder(tmp_path / "disk")
    store.create("data/a", b"1")
    child = os.fork()
    if not child:
        FILES.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        store.create("data/b", b"2")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(_all(tmp_path / "disk" / "data")) == 2
    assert store.list("data/") == ["data/a"]
    probe(store)
    assert _all(tmp_path / "disk" / "data") == ["a"]


def test_disks_without_hard_links_are_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(FILES, "link", refuse, raising=False)
    with pytest.raises(SettingError, match="no hard links"):
        probe(_folder(tmp_path / "disk"))
    assert [name for name in _all(tmp_path) if "-" in name] == []


def test_a_link_whose_answer_was_lost_counts(tmp_path, monkeypatch):
    store = _folder(tmp_path)
    real = FILES.link

    def lost(source, target):
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(FILES, "link", lost, raising=False)
    store.create("a", b"1")
    with pytest.raises(FileExistsError):
        store.create("a", b"1")


def test_folders_go_with_their_last_object_and_nothing_else_does(tmp_path):
    store = _folder(tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "notes.txt").write_text("mine")
    (tmp_path / "disk" / "link").symlink_to(tmp_path)
    store.create("data/a/b/c", b"1")
    store.create("data/d", b"1")
    store.delete(["data/a/b/c"])
    assert _all(tmp_path / "disk") == ["data", "data/d", "link", "notes.txt"]
    assert store.list("") == ["data/d", "notes.txt"]
    with pytest.raises(OSError, match="link"):
        store.list("link/")
