"""Ways to find out that a store does not keep its promises; each raises Loss, and tells how much it tried."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

from stopctl.core.errors import SaveError, StopctlError
from stopctl.store.files import Handle
from support.faults.disk import Tree, write
from support.faults.models import MODELS
from support.faults.promises import NONE, Expected, Loss, survives
from support.faults.stories import ALL, Story, cuts, prepared, told
from support.recorder import Op, Recorder


def cut_survives(tree: Tree, where: str, expected: Expected, scratch: Path) -> None:
    """Put a tree that a power cut has left on the disk, and have it recovered."""
    root = scratch / "cut"
    write(tree, root)
    try:
        survives(root / "run", expected)
    except Loss as loss:
        raise Loss(f"cut after {where}: {loss}") from loss
    finally:
        shutil.rmtree(root)


def cut_everywhere(scratch: Path, name: str, model: str, *, limit: int = 64, every: int = 1) -> int:
    """A power cut at every operation of a story, and every loss that it may bring (or one of `every`)."""
    story = told(name, scratch / "told")
    number = 0
    for number, (where, tree, expected) in enumerate(cuts(story, model, limit=limit), 1):
        if number % every == 0:
            cut_survives(tree, f"{name}, {where}", expected, scratch)
    shutil.rmtree(scratch / "told")
    return number // every


def cut_in_recovery(scratch: Path, name: str, model: str, *, every: int, limit: int = 16) -> int:
    """One of `every` cuts of a story is recovered from, and cut again at every operation of that."""
    story = told(name, scratch / "told")
    number = 0
    for i, (where, tree, expected) in enumerate(cuts(story, model, limit=limit)):
        if i % every:
            continue
        root = scratch / "first"
        write(tree, root)
        second = Story(root, expected=expected)
        second.open()
        second.close()
        for there, again, promised in cuts(second, model, limit=limit):
            cut_survives(again, f"{where}, and then {there}", promised, scratch)
            number += 1
        shutil.rmtree(root)
    shutil.rmtree(scratch / "told")
    return number


CODES = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT)
FAILED = "failed "
WAYS = ("once", "from then on", "short", "torn")


class Failing(Recorder):
    """Operation number `at` fails with `code`, `once` or with all after it.

    ``short``: if it is a write, it writes half and says so; ``torn``: it writes half and then fails. `real`
    never fails: it is no question to the disk.
    """

    def __init__(self, at: int, code: int, way: str) -> None:
        super().__init__(self._fail)
        self.at, self.code, self.way = at, code, way
        self.injected = 0

    def _fail(self, index: int, op: Op) -> None:
        if op.name == "real":
            return
        if (index == self.at and self.way == "once") or (index >= self.at and self.way == "from then on"):
            self.injected += 1
            self.ops[index] = op._replace(name=f"{FAILED}{op.name}")  # so the simulated disk passes it over
            raise OSError(self.code, os.strerror(self.code))

    def write(self, handle: Handle, data: bytes | bytearray | memoryview) -> int:
        if len(self.ops) != self.at or self.way not in ("short", "torn"):
            return int(super().write(handle, data))
        self.injected += 1
        written = int(super().write(handle, data[: len(data) // 2]))
        if self.way == "torn":
            raise OSError(self.code, os.strerror(self.code))
        return written


def fail_everywhere(scratch: Path, name: str, code: int, way: str, *, every: int = 1, first: int = 0) -> int:
    """The operations of a story fail, one after the other; returns how many errors were injected."""
    ops = told(name, scratch / "whole").files.ops
    shutil.rmtree(scratch / "whole")
    writes = ("write",) if way in ("short", "torn") else None
    places = [at for at, op in enumerate(ops) if writes is None or op.name in writes]
    return sum(_fail(scratch, name, Failing(at, code, way)) for at in places[first::every])


def _fail(scratch: Path, name: str, files: Failing) -> int:
    root = scratch / "failing"
    story = prepared(name, root, files)
    try:
        _drive(story, goes_on=files.way != "from then on")
        _told_and_left_alone(story, files)
        survives(story.run, story.expected)
    except Loss as loss:
        failed = " ".join(op.told(root) for op in files.ops[files.at : files.at + 1])
        raise Loss(
            f"{name}, {errno.errorcode[files.code]} {files.way} at {files.at} ({failed}): {loss}"
        ) from loss
    finally:
        files.hook = None
        story.close()
        shutil.rmtree(root)
    return files.injected


def fail_and_cut(scratch: Path, name: str, code: int, model: str, *, every: int, first: int = 0) -> int:
    """The operations of a story fail from one on, and then the power is cut; returns how often it was."""
    count = len(told(name, scratch / "whole").files.ops)
    shutil.rmtree(scratch / "whole")
    number = 0
    for at in range(first, count, every):
        files = Failing(at, code, "from then on")
        root = scratch / "failing"
        story = prepared(name, root, files)
        _drive(story, goes_on=False)
        files.hook = None
        disk = MODELS[model](root, story.before, limit=8)
        disk.do(files.ops)
        expected = replace(story.expected, told=NONE)
        story.close()
        shutil.rmtree(root)
        for tree in disk.states():
            cut_survives(tree, f"{name}, {errno.errorcode[code]} from {at} on", expected, scratch)
            number += 1
    return number


def _told_and_left_alone(story: Story, files: Failing) -> None:
    """EIO from what makes a save durable reaches the driver, and no fsync is tried again."""
    if not files.injected or files.way != "once" or files.code != errno.EIO:
        return
    failed = files.ops[files.at]
    name = failed.name.removeprefix(FAILED)
    durable = ("create", "mkdir", "write", "write_back", "sync", "sync_directory")
    if name in durable and not story.told_of_error:
        raise Loss("the error was passed over")
    after = [op for op in files.ops[files.at + 1 :] if op.name == "sync" and op.paths == failed.paths]
    if after and ".tmp-epoch" in str(failed.paths[0]):
        raise Loss("a failed fsync was tried again")


def _says_why(error: StopctlError, files: Recorder) -> None:
    """The SaveError of one operation that failed has the reason and names the file."""
    if not isinstance(error, SaveError) or not isinstance(files, Failing) or files.way != "once":
        return
    if os.strerror(files.code) not in str(error) or error.path is None or error.path.name not in str(error):
        raise Loss(f"an error without its reason or its file: {error}")


def _drive(story: Story, *, goes_on: bool) -> None:
    """Tell a story whose operations may fail; then save again, if that must work, and close."""
    try:
        ALL[story.name](story)
        return
    except StopctlError as error:
        story.told_of_error = True
        _says_why(error, story.files)
    except Exception as error:
        raise Loss(f"an error that is not ours: {error!r}") from error
    try:
        if goes_on and story.store is not None:
            story.save(story.due or 50)
        story.close()
    except StopctlError as error:
        if goes_on:
            raise Loss(f"it does not go on after an error: {error!r}") from error
