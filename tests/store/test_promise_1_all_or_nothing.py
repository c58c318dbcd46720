"""After SIGKILL or power loss at any point, every visible checkpoint is complete, and a reported save is there."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stopctl.core.errors import StopctlError
from stopctl.store import CheckpointInfo, Files, Listing, Reader, Store
from stopctl.store.files import Handle
from support import powercut
from support.recorder import Hook, Op, Recorder

ROOT = Path(__file__).parents[2]
CHILD = ROOT / "tests" / "support" / "store_child.py"
Save = Callable[..., CheckpointInfo]

ONE = "epoch-0001-step-000000010-w0001"
TWO = "epoch-0002-step-000000020-w0001"
THREE = "epoch-0003-step-000000030-w0002"


def commit_of(name: str) -> list[str]:
    temporary = f"run/checkpoints/.tmp-{name}-*"
    files = [
        f"{op} {temporary}/{file}"
        for file in ("state.safetensors", "state.json", "manifest.json")
        for op in ("create", "write", "sync")
    ]
    return [
        f"mkdir {temporary}",
        *files,
        f"sync_directory {temporary}",
        f"rename {temporary} run/checkpoints/{name}",
        "sync_directory run/checkpoints",
    ]


LOCK = ["open_lock run/run.lock", "lock run/run.lock", "write run/run.lock", "truncate run/run.lock"]
RUN_JSON = [
    "unlink run/.tmp-run.lock",
    "unlink run/.tmp-run.json",
    "create run/.tmp-run.json",
    "write run/.tmp-run.json",
    "sync run/.tmp-run.json",
    "rename run/.tmp-run.json run/run.json",
    "open_append run/journal.jsonl",
    "sync_directory run",
]
CLOSE = ["sync run/journal.jsonl", "unlock run/run.lock"]
TRASH = f"run/checkpoints/.trash-{ONE}-*"
DELETE = [
    f"rename run/checkpoints/{ONE} {TRASH}",
    "sync_directory run/checkpoints",
    *[f"unlink {TRASH}/{file}" for file in ("manifest.json", "state.json", "state.safetensors")],
    f"rmdir {TRASH}",
]
CHAIN = [
    *("mkdir run", "sync_directory ."),
    *LOCK,
    "mkdir run/checkpoints",
    *RUN_JSON,
    "sync_directory .",
    *commit_of(ONE),
    *commit_of(TWO),
    *CLOSE,
    *LOCK,
    *RUN_JSON,
    *commit_of(THREE),
    *DELETE,
    *CLOSE,
]


class Life:
    """Two openings, three commits, one delete; `promised` says from which operation on what must be there."""

    def __init__(self, root: Path, save: Save, hook: Hook | None = None) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.files = Recorder(hook)
        self.promised: list[tuple[int, set[int]]] = []
        self.allowed: list[tuple[int, set[int]]] = []
        store = self.open()
        self.commit(store, save, 1, set())
        self.commit(store, save, 2, {1})
        store.close()
        store = self.open()
        self.commit(store, save, 3, {1, 2})
        self.note({2, 3}, {1, 2, 3})
        store.delete([ONE], guarded=())
        self.note({2, 3}, {2, 3})
        store.close()

    def open(self) -> Store:
        store = Store.lock(self.root / "run", files=self.files)
        store.begin({})
        return store

    def commit(self, store: Store, save: Save, number: int, before: set[int]) -> None:
        self.note(before, before | {number})
        save(store, number)
        self.note(before | {number}, before | {number})

    def note(self, promised: set[int], allowed: set[int]) -> None:
        self.promised.append((len(self.files.ops), promised))
        self.allowed.append((len(self.files.ops), allowed))

    def at(self, count: int) -> tuple[set[int], set[int]]:
        """What must, and what may, be there once `count` operations have been done."""
        promised = [numbers for index, numbers in self.promised if index <= count] or [set()]
        allowed = [numbers for index, numbers in self.allowed if index <= count] or [set()]
        return promised[-1], allowed[-1]

    def losses(self, folder: Path, check: Any) -> Iterator[str | None]:
        """For every tree that a power cut can leave, once: what is wrong with it, if anything is."""
        disk = powercut.Disk(self.root)
        seen = set()
        for count, op in enumerate(self.files.ops, 1):
            disk.do([op])
            for tree in disk.states() if Recorder.changes(op) else ():
                promised, allowed = self.at(count)
                key = (tuple(sorted(tree.items())), frozenset(promised), frozenset(allowed))
                if key not in seen:
                    seen.add(key)
                    loss = lost(tree, folder / "cut", promised, allowed, check)
                    yield loss and f"after {op.told(self.root)}: {loss}"


def test_the_chain_of_operations_is_the_one_that_was_promised(tmp_path: Path, save: Save) -> None:
    assert Life(tmp_path, save).files.told(tmp_path) == CHAIN


def test_sweeping_syncs_before_it_empties_what_a_power_cut_could_bring_back(run: Path, save: Save) -> None:
    store = Store.lock(run)
    store.begin({})
    info = save(store, 1)
    store.close()
    info.path.rename(info.path.parent / ".trash-x")  # as a delete that was killed leaves it
    (info.path.parent / ".tmp-x").mkdir()
    files = Recorder()
    store = Store.lock(run, files=files)
    store.begin({})
    told = [told for told in files.told(run) if "checkpoints" in told]
    store.close()
    assert told == [
        "sync_directory checkpoints",
        "rmdir checkpoints/.tmp-x",
        *[
            f"unlink checkpoints/.trash-x/{name}"
            for name in ("manifest.json", "state.json", "state.safetensors")
        ],
        "rmdir checkpoints/.trash-x",
    ]


def test_a_chain_that_lacks_any_one_sync_or_rename_is_noticed(tmp_path: Path, save: Save) -> None:
    places = [i for i, told in enumerate(CHAIN) if told.startswith(("sync", "rename"))]
    assert len(places) == 30
    for place in places:
        root = tmp_path / str(place)
        root.mkdir()
        told = dropping(root, save, {place})
        assert told != CHAIN, f"without {CHAIN[place]}, nobody would notice"
        shutil.rmtree(root)


def dropping(root: Path, save: Save, places: set[int]) -> list[str]:
    """The chain where the operations at these places of it are left out."""
    files: Recorder | None = None
    changing = itertools.count()

    def hook(index: int, op: Op) -> bool:
        return bool(Recorder.changes(op) and next(changing) in places)

    try:
        files = Life(root, save, hook).files
    except StopctlError:
        return ["an error"]
    return files.told(root)


def test_a_power_cut_at_any_operation_leaves_whole_checkpoints_and_what_was_reported(
    tmp_path: Path, save: Save, check: Any
) -> None:
    losses = list(Life(tmp_path / "real", save).losses(tmp_path, check))
    assert len(losses) > 90
    assert [loss for loss in losses if loss] == []


@pytest.mark.parametrize(
    "left_out",
    [
        ["sync_directory ."],
        ["sync_directory run"],
        ["sync run/.tmp-run.json"],
        *([f"sync run/checkpoints/.tmp-{ONE}-*/{file}"] for file in ("state.safetensors", "state.json", "manifest.json")),
        [f"sync_directory run/checkpoints/.tmp-{ONE}-*"],
        ["sync_directory run/checkpoints"],
    ],
    ids=str,
)  # fmt: skip
def test_no_sync_can_be_left_out_without_a_power_cut_that_loses_something(
    tmp_path: Path, save: Save, check: Any, left_out: list[str]
) -> None:
    root = tmp_path / "real"
    assert any(Life(root, save, lambda index, op: op.told(root) in left_out).losses(tmp_path, check))


def test_a_delete_that_did_not_sync_before_emptying_would_leave_halves(
    tmp_path: Path, save: Save, check: Any
) -> None:
    seen = {"trash": False}

    def hook(index: int, op: Op) -> bool:
        seen["trash"] |= op.name == "rename" and ".trash-" in str(op.paths[1])
        return seen["trash"] and op.told(tmp_path / "real") == "sync_directory run/checkpoints"

    losses = Life(tmp_path / "real", save, hook).losses(tmp_path, check)
    assert any("manifest.json: No such file" in loss for loss in losses if loss)


class Unsynced(Files):
    """For looking at a tree that has survived already."""

    def sync(self, handle: Handle) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


def lost(
    tree: dict[str, bytes | None], root: Path, promised: set[int], allowed: set[int], check: Any
) -> str | None:
    """What is wrong with such a tree, in words."""
    powercut.write(tree, root)
    try:
        store = Store.lock(root / "run", files=Unsynced())
        try:
            if store.meta is None:
                return "the run is gone" if promised else None
            listing = store.list()
            numbers = {info.epoch for info in listing.good}
            if listing.damaged or not promised <= numbers <= allowed:
                return f"{listing.damaged}, {numbers} instead of {promised} to {allowed}"
            check(store, numbers)
            if any(info.writer > store.meta["writer"] for info in listing.good):
                return "the number of a writer was forgotten"
            store.begin({})
            if len(list((root / "run/checkpoints").iterdir())) != len(numbers):
                return "something was left"
            return None
        finally:
            store.close()
    except StopctlError as error:
        return repr(error)
    finally:
        shutil.rmtree(root)


def killed(what: str, folder: Path) -> list[tuple[Path, str]]:
    """Run the program that dies again and again; the runs it leaves, and what each had reported."""
    found = subprocess.run(
        [sys.executable, str(CHILD), what, str(folder)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    deaths = [line.split() for line in found.stdout.splitlines()]
    assert {status for _, status, _ in deaths} <= {"-9", "0"}
    halves = [run for run, status, _ in deaths if run.endswith("True") and status == "-9"]
    assert all(status == "-9" for run, status, _ in deaths if run.endswith("False"))
    assert what == "delete" or len(halves) >= 1
    return [(Path(run), told) for run, status, told in deaths if status == "-9"]


def whole(listing: Listing, reader: Reader) -> set[int]:
    """The numbers that are there, each verified to be all of one save."""
    assert listing.damaged == ()
    for info in listing.good:
        components, state = reader.load(info)
        assert set(bytes(components["w"].data)) == {info.epoch}
        assert state == {"number": info.epoch}
    return {info.epoch for info in listing.good}


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [("commit", {1, 2}, {1, 2, 3}), ("delete", {1, 2}, {2}), ("begin", {1, 2}, {1, 2})],
)
def test_sigkill_at_every_operation_leaves_the_old_or_the_new_and_never_a_mixture(
    tmp_path: Path, what: str, old: set[int], new: set[int]
) -> None:
    deaths = killed(what, tmp_path)
    found = []
    for run, told in deaths:
        reader = Reader(run)
        numbers = whole(reader.list(), reader)
        assert numbers in (old, new)
        found.append(numbers)
        assert told == "2", "nothing more was reported"
        store = Store.lock(run)
        store.begin({})
        assert whole(store.list(), store) == numbers
        assert len(list((run / "checkpoints").iterdir())) == len(numbers)
        store.commit({}, state=None, epoch=9, step=9, seconds=0, value=None)
        store.close()
    assert old in found
    assert new in found
    assert found == sorted(found, key=lambda numbers: numbers != old), "once new, always new"


def test_sigkill_at_any_time_keeps_whatever_was_reported(tmp_path: Path) -> None:
    rng = random.Random(4)
    for i in range(4):
        run = tmp_path / str(i)
        child = subprocess.Popen(
            [sys.executable, str(CHILD), "loop", str(run)],
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "1\n"
        time.sleep(rng.uniform(0, 0.08))
        child.kill()
        reported = {1} | {int(line) for line in child.stdout.read().splitlines()}
        child.wait()
        child.stdout.close()
        store = Store.lock(run)
        numbers = whole(store.list(), store)
        assert reported <= numbers <= reported | {max(reported) + 1}
        store.begin({})
        assert whole(store.list(), store) == numbers
        assert len(list((run / "checkpoints").iterdir())) == len(numbers)
        store.close()
