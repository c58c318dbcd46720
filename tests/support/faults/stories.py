"""What a driver does with a store, told so that at any operation it is known what must be there."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from stopctl.core.errors import StopctlError
from stopctl.store import FILES, Store, manual
from support.faults.disk import Tree, read, write
from support.faults.models import MODELS
from support.faults.promises import Expected, begun, commit, commit_together
from support.recorder import Op, Recorder


class Story:
    """Steps on the run ``root/run``, recorded; whoever fails in one leaves `expected` as it then is.

    Args:
        root: an existing directory.
        files: its operations.
        expected: what is there already.
        before: the tree below `root`, where that is known.
    """

    def __init__(
        self,
        root: Path,
        files: Recorder | None = None,
        expected: Expected | None = None,
        before: Tree | None = None,
    ) -> None:
        self.name = ""
        self.root = root
        self.run = root / "run"
        self.files = files or Recorder()
        self.store: Store | None = None
        self.told_of_error = False
        self.due: int | None = None  # a save that was begun and not reported
        self.expected = expected or Expected()
        self.notes: list[tuple[int, Expected]] = [(0, self.expected)]
        self.before = read(root) if before is None else before

    def at(self, count: int) -> Expected:
        """What was promised once `count` operations had been done."""
        return [expected for index, expected in self.notes if index <= count][-1]

    def open(self, **options: Any) -> None:
        self.store = begun(self.run, self.files, **options)

    def close(self) -> None:
        store, self.store = self.store, None
        if store is not None:
            store.close()

    def save(self, number: int, *, pinned: bool = False, together: bool = False) -> None:
        assert self.store is not None
        self._note(may=self.expected.may | {number})
        self.due = number
        if together:
            info = commit_together(self.store, number, self.files)
        else:
            info = commit(self.store, number, pinned=pinned)
        self.due = None
        kept = self.expected.pinned | ({number} if pinned else set())
        self._note(must=self.expected.must | {number}, pinned=kept)
        self.store.append("saved", name=info.name)  # as Run does
        self._note(told=self.expected.told | {number})

    def delete(self, numbers: Collection[int]) -> None:
        assert self.store is not None
        self._note(must=self.expected.must - set(numbers))
        self.store.delete([self._find(number) for number in sorted(numbers)], guarded=())
        self._note(may=self.expected.may - set(numbers))

    def rot(self, number: int) -> None:
        """Not the driver's doing: a bit of that save's arrays turns over."""
        path = self.run / "checkpoints" / self._find(number) / "state.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        self.files.ops.append(Op("rot", (path,), bytes(data)))
        self._note(rotten=self.expected.rotten | {number})

    def set_aside(self, number: int) -> None:
        assert self.store is not None
        self.store.set_aside(self._find(number), "its SHA-256 is not the one in the manifest")

    def pin(self, number: int) -> None:
        with _reading():
            manual.pin(self.run, self._find(number), files=self.files)
        self._note(pinned=self.expected.pinned | {number})

    def unpin(self, number: int) -> None:
        self._note(pinned=self.expected.pinned - {number})
        with _reading():
            manual.unpin(self.run, self._find(number), files=self.files)

    def take_over(self) -> None:
        """Open a run that another process has (here a lock that this one does not know of); its writes are verified."""
        handle = FILES.open_lock(self.run / "run.lock")
        assert FILES.lock(handle)
        try:
            self.store = begun(self.run, self.files, take_over=True, verify_writes=True)
        finally:
            FILES.close(handle)

    def _find(self, number: int) -> str:
        """The name of that save's checkpoint."""
        return next(n for n in os.listdir(self.run / "checkpoints") if n.startswith(f"epoch-{number:04}-"))

    def _note(self, **changes: frozenset[int]) -> None:
        self.expected = replace(self.expected, **changes)
        self.notes.append((len(self.files.ops), self.expected))


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """A Reader lets an OSError through that says nothing of a checkpoint; to a driver it is an error as others."""
    try:
        yield
    except OSError as error:
        raise StopctlError(str(error)) from error


def begins(story: Story) -> None:
    story.open()
    story.save(1)
    story.close()


def saves(story: Story) -> None:
    story.open()
    story.save(6)
    story.save(7, pinned=True)
    story.close()


def saves_together(story: Story) -> None:
    story.open()
    story.save(6, together=True)
    story.close()


def deletes(story: Story) -> None:
    story.open()
    story.delete([3, 4])
    story.delete([6])
    story.close()


def sweeps(story: Story) -> None:
    story.open()
    story.close()


def sets_aside(story: Story) -> None:
    story.open()
    story.rot(5)
    story.set_aside(5)
    story.save(6)
    story.close()


def pins(story: Story) -> None:
    story.open()
    story.pin(3)
    story.unpin(1)
    story.delete([1, 4])
    story.unpin(3)
    story.pin(2)
    story.close()


def takes_over(story: Story) -> None:
    story.take_over()
    story.save(6)
    story.close()


def saves_and_deletes(story: Story) -> None:
    story.open()
    story.save(6)
    story.delete([4])
    story.save(7)
    story.delete([5, 6])
    story.close()


STORIES: dict[str, Callable[[Story], None]] = {
    tell.__name__: tell
    for tell in (
        begins,
        saves,
        saves_together,
        deletes,
        sweeps,
        sets_aside,
        pins,
        takes_over,
        saves_and_deletes,
    )
}


def saves_for_the_process(story: Story) -> None:
    """With durability="process": a kill takes nothing, a power cut may."""
    story.open(durability="process")
    story.save(6)
    story.delete([4])
    story.save(7)
    story.close()


ALL = STORIES | {saves_for_the_process.__name__: saves_for_the_process}
"""With the story that only a process's end must not harm."""


BEFORE = {"begins": 0, "saves_together": 1, "deletes": 7}
"""How many saves a story begins with, where it is not 5."""


def prepared(name: str, root: Path, files: Recorder | None = None) -> Story:
    """Where the story of that name begins: with a run of the saves 1 to 5, or as `BEFORE` has it.

    The pinned 1, the best 2 and the newest always stay; the value of 4 is not a number. What is there is
    durable; sweeps finds what a killed save and a killed delete leave. `root` is made, in an existing
    directory.
    """
    tree, expected = _before(BEFORE.get(name, 5))
    tree = tree | (LEFT if name == "sweeps" else {})
    write(tree, root)
    story = Story(root, files, expected, tree)
    story.name = name
    return story


def told(name: str, root: Path, files: Recorder | None = None) -> Story:
    """The whole story of that name."""
    story = prepared(name, root, files)
    ALL[name](story)
    return story


LEFT: Tree = {
    "run/.tmp-run.json": b"{",
    "run/checkpoints/.tmp-epoch-0009-step-000000090-w0001-0a1b2c3d": None,
    "run/checkpoints/.tmp-epoch-0009-step-000000090-w0001-0a1b2c3d/state.safetensors": b"",
    "run/checkpoints/.tmp-epoch-0009-step-000000090-w0001-0a1b2c3d/part-00001.safetensors": b"",
    "run/checkpoints/.trash-epoch-0008-step-000000080-w0001-0a1b2c3d": None,
    "run/checkpoints/.trash-epoch-0008-step-000000080-w0001-0a1b2c3d/state.json": b"{}",
    "run/checkpoints/.trash-epoch-0007-step-000000070-w0001-0a1b2c3d": None,
}


@functools.cache
def _before(count: int) -> tuple[Tree, Expected]:
    with tempfile.TemporaryDirectory() as folder:
        story = Story(Path(folder))
        if count:
            story.open()
            for number in range(1, count + 1):
                story.save(number, pinned=number == 1)
            story.close()
        return read(story.root), story.expected


def cuts(
    story: Story, model: str, *, limit: int, seed: int = 0, seen: set[object] | None = None
) -> Iterator[tuple[str, Tree, Expected]]:
    """Every state that a power cut may leave at any operation of a story, once: where, the tree, the promises."""
    disk = MODELS[model](story.root, story.before, limit=limit, seed=seed)
    seen = set() if seen is None else seen
    for count, op in enumerate(story.files.ops, 1):
        disk.do([op])
        if not Recorder.changes(op):
            continue
        expected = replace(story.at(count), told=frozenset())  # no line of the journal is synced
        for tree in disk.states():
            key = (frozenset(tree.items()), expected)
            if key not in seen:
                seen.add(key)
                yield op.told(story.root), tree, expected
