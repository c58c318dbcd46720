from __future__ import annotations

import json
import os

import pytest

from stopctl import DamagedError, Run
from stopctl.runs.standing import holder
from stopctl.runs.table import read_rows
from support.ran import ran


def test_the_process_that_has_a_run_open_is_found_and_nothing_is_touched(tmp_path):
    path = tmp_path / "run"
    with Run(path, state={}, durability="process"):
        before = (path / "run.lock").stat().st_mtime_ns
        found = holder(path)
        assert (found.pid, found.host) == (os.getpid(), os.uname().nodename)
        assert (path / "run.lock").stat().st_mtime_ns == before
    assert (
        holder(path, locks=tmp_path / "none") is not None
    )  # where no locks are listed, a living process counts


def test_a_lock_file_that_nobody_holds_is_free(tmp_path):
    path = ran(tmp_path / "run")
    (tmp_path / "locks").write_text("1: POSIX  ADVISORY  WRITE 1 00:1b:77 0 EOF\n")
    assert holder(path, locks=tmp_path / "locks") is None
    inode = (path / "run.lock").stat().st_ino
    (tmp_path / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 1 00:1b:{inode} 0 EOF\n")
    assert holder(path, locks=tmp_path / "locks").pid == os.getpid()


def test_a_process_that_has_died_holds_nothing(tmp_path):
    line = {"host": os.uname().nodename, "pid": 2**22 + 1, "started": "x"}
    (tmp_path / "run.lock").write_text(json.dumps(line) + "\n")
    assert holder(tmp_path, locks=tmp_path / "none") is None


def test_a_process_on_another_host_is_believed(tmp_path):
    (tmp_path / "run.lock").write_text('{"host": "elsewhere", "pid": 7, "started": "then"}\n')
    assert holder(tmp_path).host == "elsewhere"


def test_no_lock_file_or_one_that_says_nothing_is_no_holder(tmp_path):
    assert holder(tmp_path) is None
    for text in ("", "{", "[]", '{"pid": "7"}', '{"pid": 7}'):
        (tmp_path / "run.lock").write_text(text)
        assert holder(tmp_path) is None


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_lock_that_is_no_file_is_told_and_the_other_runs_are_read(tmp_path, put):
    good, bad = ran(tmp_path / "a"), ran(tmp_path / "b")
    (bad / "run.lock").unlink()
    put(bad / "run.lock")
    with pytest.raises(DamagedError, match=r"run\.lock: "):
        holder(bad)
    rows, wrong = read_rows(tmp_path)
    assert [one.standing.path for one in rows] == [good]
    assert [path for path, _ in wrong] == [bad]
    assert str(bad / "run.lock") in wrong[0][1]
