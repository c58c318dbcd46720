"""A save in the background that fails or is killed at any of its file operations loses nothing, silently or not."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stopctl import StopctlError
from stopctl.store import Reader
from support.background_child import THREAD, content, holds, opened
from support.brake import finished
from support.recorder import CODES, WITHOUT_PATH, Meeting

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "tests" / "support" / "background_child.py"

QUIET = {"exists", "real", "identity", "uncache"}
"""Questions whose answers are no errors, or whose errors say nothing of the save."""


class Failing(Meeting):
    """The operation fails once."""

    def __init__(self, at, code):
        super().__init__(at, THREAD)
        self.code, self.failed = code, None

    def met(self, op):
        if op.name not in QUIET:
            self.failed = op
            names = [] if op.name in WITHOUT_PATH else [str(path) for path in op.paths[:1]]
            raise OSError(self.code, os.strerror(self.code), *names)


def run_with(directory, files, **more):
    """Epochs 1 to 5, of which the save of 3 fails somewhere; where errors were told, and what was found after it."""
    state, told, found = {"w": content(0)}, [], []
    run = opened(directory, state, files, **more)
    for epoch in run.epochs(5):
        if epoch == 4:
            files.armed = False
            reader = Reader(directory)
            listing = reader.list()
            found = [info.epoch for info in listing.good if holds(reader, info)]
            assert (len(found), listing.damaged) == (len(listing.good), ())
        state["w"][:] = content(epoch)
        files.armed = epoch == 3
        try:
            run.report(val_loss=1 / epoch)
        except StopctlError:
            told.append(epoch)
        state["w"][:] = -1.0
        finished()
    run.close()
    return run, told, found


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
def test_an_operation_that_fails_is_told_and_loses_nothing(tmp_path, code):
    at, stride, injected = 0, 1 if code == CODES[0] else 4, 0  # the store treats them alike
    while True:
        files = Failing(at, code)
        directory = tmp_path / str(at)
        run, told, found = run_with(directory, files)
        assert found in ([2], [1, 2], [2, 3], [1, 2, 3], [3]), (at, files.failed)
        if files.failed is not None:
            injected += 1
            assert told == [4] or (told == [] and 3 in found), (at, files.failed)
            if files.failed.name in ("create", "mkdir", "write", "sync", "sync_directory", "rename"):
                assert told == [4], (at, files.failed)
        assert [info.epoch for info in Reader(directory).list().good][-2:] == [4, 5] or run.checkpoints[
            -1
        ].epoch == 5
        lines = [line for line in Reader(directory).journal() if line["event"] == "save_failed"]
        assert [line["epoch"] for line in lines] == ([] if 3 in found else [3])
        if len(files.names) <= at:
            break
        at += stride
    assert injected > 20 / stride


def test_a_run_that_goes_on_over_errors_makes_the_save_good(tmp_path):
    for at in range(0, 36, 5):
        files = Failing(at, errno.EIO)
        directory = tmp_path / str(at)
        run, told, found = run_with(directory, files, save_errors="continue")
        assert told == []
        assert found[-1] in (2, 3)
        assert run.checkpoints[-1].epoch == 5


def test_a_kill_at_any_operation_leaves_the_old_or_the_new(tmp_path):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["lost"] == []
    assert told["kills"] > told["operations"] > 25
    assert 0 < told["there"] < told["kills"]
