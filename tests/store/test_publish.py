"""A file for people appears whole, and takes nobody's place unasked."""

from __future__ import annotations

import errno
import os

import pytest

from stopctl import SaveError, SettingError
from stopctl.store import publish as module
from stopctl.store.publish import publish
from support.recorder import Recorder


@pytest.fixture
def target(tmp_path):
    return tmp_path / "file"


def test_the_parts_are_there_in_order_with_the_usual_permissions(target):
    mask = os.umask(0o027)
    try:
        publish(target, [b"one ", b"two"], "the file")
    finally:
        os.umask(mask)
    assert target.read_bytes() == b"one two"
    assert target.stat().st_mode & 0o777 == 0o640
    assert list(target.parent.iterdir()) == [target]


def test_it_is_flushed_before_it_has_its_name(target, monkeypatch):
    files = Recorder()
    monkeypatch.setattr(module, "FILES", files)
    publish(target, [b"x"], "the file")
    changes = [op.name for op in files.ops if op.name in ("create", "sync", "rename", "sync_directory")]
    assert changes == ["create", "sync", "rename", "sync_directory"]


def test_what_is_there_is_replaced_only_if_it_may_be(target):
    target.write_text("mine")
    with pytest.raises(SettingError, match="is there already: choose another name"):
        publish(target, [b"x"], "the file", ours=lambda path: path.read_text() == "ours")
    assert target.read_text() == "mine"
    target.write_text("ours")
    publish(target, [b"x"], "the file", ours=lambda path: path.read_text() == "ours")
    assert target.read_text() == "x"


def test_what_appears_meanwhile_is_not_replaced(target, monkeypatch):
    def hook(index, op):
        if op.name == "sync":
            target.write_text("theirs")

    monkeypatch.setattr(module, "FILES", Recorder(hook))
    with pytest.raises(SettingError, match="is there already"):
        publish(target, [b"x"], "the file")
    assert target.read_text() == "theirs"
    assert list(target.parent.iterdir()) == [target]


def test_a_directory_is_no_place_for_a_file(tmp_path):
    with pytest.raises(SettingError, match="is a directory: name a file in it"):
        publish(tmp_path, [b"x"], "the file", ours=lambda _: True)
    with pytest.raises(SettingError, match="is no directory: make it first, or write the file elsewhere"):
        publish(tmp_path / "there" / "file", [b"x"], "the file")


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", ["create", "write", "sync", "rename"])
def test_a_failure_is_told_and_leaves_all_as_it_was(target, monkeypatch, name, there):
    if there:
        target.write_text("older")

    def fail(index, op):
        if op.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "FILES", Recorder(fail))
    with pytest.raises(SaveError, match=r"the file failed: .*No space left"):
        publish(target, [b"x"], "the file", ours=lambda _: True)
    assert [path.read_text() for path in target.parent.iterdir()] == ["older"] * there
