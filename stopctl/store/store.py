"""The one writer of a run's directory."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, TypeAlias

from stopctl.core.errors import DamagedError, OrderError, SettingError
from stopctl.store import commit, manifest, strict
from stopctl.store.draft import Content, Draft, Writing
from stopctl.store.fence import Fence
from stopctl.store.files import DIRECTORY, FILES, Files, as_save_error, without_sync
from stopctl.store.index import FULL, Index
from stopctl.store.journal import Journal
from stopctl.store.lock import LOCK, RunLock, now
from stopctl.store.manifest import MAX_WRITER, NAME, CheckpointInfo, order
from stopctl.store.pins import NO_PINS, forget_pin, read_pins
from stopctl.store.reader import Damage, Listing, Reader
from stopctl.store.rundir import (
    FORMAT,
    JOURNAL,
    RUN,
    make_directory,
    read_meta,
    refuse_no_run,
    set_run_aside,
    start,
)
from stopctl.store.task import Task
from stopctl.store.tree import Tree

__all__ = ["CheckpointInfo", "Damage", "Listing", "Reader", "Store"]


Durability: TypeAlias = Literal["full", "process"]

LARGE = 64 << 20
"""Bytes of deleted checkpoints whose removal takes some hundredths of a second, and more."""


class Store(Reader):
    """A run's directory, locked for this process: first `lock`, then `begin`, then the rest, then `close`.

    `linked` says which files had another name and were replaced by `begin`, None if none had.

    Every method raises SaveError, with the file and the reason, where an operation of the file system fails,
    or where another process has taken the run over; what was saved before stays as it is.
    """

    linked: str | None = None
    _emptying: Task[dict[str, tuple[str, ...]]] | None = None  # the trash, while training goes on

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        take_over: bool = False,
        durability: Durability = "full",
        verify_writes: bool = False,
        files: Files = FILES,
    ) -> None:
        if durability not in ("full", "process"):
            raise SettingError(f"durability={durability!r}: write 'full' or 'process'")
        files = files if durability == "full" else without_sync(files)
        self._open(path, files)
        self._durability = durability
        self._journal: Journal | None = None
        self._index: Index | None = None
        self._full = 0  # the size of the journal at which a block of the index may be full
        with as_save_error("opening the run", self.path):
            make_directory(files, self.path)
            refuse_no_run(files, self.path)
            self._lock = RunLock.take(files, self.path, over=take_over)
            self._fence = Fence(files, self.path, self._lock)
            self._writing = Writing(files, self._folder, self._fence, verify=verify_writes)
            try:
                self.meta = read_meta(files, self.path)
            except BaseException:
                self._lock.release()
                raise

    @classmethod
    def lock(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """Make the directory if need be and take its lock; changes nothing else.

        ``meta`` is None if there is no run yet, or only what a process left that was killed at its start.

        Args:
            path: the run's directory.
            options: `take_over`: take it from whoever has it open, in this process or in another, and then
                writes no more. `durability`: "full", or "process" to skip every fsync: what is saved outlives
                this process, but not a power cut. `verify_writes`: read every file of a checkpoint back
                before it appears. `files`: the file operations; a test gives its own.

        Raises:
            LockedError: another process has it open, or this very one.
            NotARunError: there are files, but no run.json.
        """
        return cls(path, **options)

    @property
    def next_writer(self) -> int:
        """The lowest number that `begin` can give this writer."""
        with as_save_error("opening the run", self.path):
            return self._next_writer()

    def set_run_aside(self) -> Path:
        """Have no run here, before `begin`: what is here moves into a directory, which is returned.

        Raises:
            SaveError: an operation failed; called again, it moves the rest.
        """
        self._check_owned()
        with as_save_error("setting the run aside", self.path):
            aside = set_run_aside(self._files, self.path)
        self.meta = None
        return aside

    def reread(self) -> None:
        """Read run.json anew, before `begin`: somebody whom the caller has asked to has written it."""
        self.meta = read_meta(self._files, self.path)

    def begin(self, meta: Mapping[str, Any], writer: int = 0) -> int:
        """Write run.json: `meta`, over what is there already, with the next writer's number; then sweep.

        When it returns, no older writer can add a checkpoint any more: either its last one is there, or it
        never will be (see `commit.withdraw_unfinished`).

        Args:
            meta: plain JSON.
            writer: the number, where it is to be larger than the next.

        Returns:
            The number of this writer, from 1.

        Raises:
            TreeError: `meta` is not plain JSON.
            OrderError: called twice.
            DamagedError: there is no next number.
        """
        self._check_owned()
        if self._journal is not None:
            raise OrderError(f"{self.path}: begin() was called already")
        old = self.meta or {}
        self._fence.check()
        with as_save_error("opening the run", self.path):
            writer = max(writer, self._next_writer())
            if writer > MAX_WRITER:
                raise DamagedError(
                    f"{self.path}: the writer's number {writer - 1}, in {RUN} or the name of a checkpoint, "
                    "leaves none for this one: put it right by hand"
                )
            ours = {"format": FORMAT, "writer": writer, "durability": self._durability}
            new = old | strict.plain(dict(meta), "run.json") | ours
            self._journal, left = start(self._files, self.path, new, new=self.meta is None)
        self._fence.check()
        self.meta, self._fence.writer = new, writer
        self._tell_left(left)
        linked = [name for name, file in ((LOCK, self._lock), (JOURNAL, self._journal)) if file.linked]
        if linked:
            self.linked = (
                f"{' and '.join(linked)} had another name, as in a backup by cp -al, and became a copy of "
                "this run's own: what is written here is not written there"
            )
            self.append("noticed", text=self.linked, level="warning")
        return writer

    def commit(
        self,
        components: Mapping[str, Tree],
        *,
        state: strict.JsonValue,
        epoch: int,
        step: int,
        seconds: float,
        value: float | None,
        values: Mapping[str, float] = MappingProxyType({}),
        reasons: Sequence[str] = (),
        label: str | None = None,
        pinned: bool = False,
    ) -> CheckpointInfo:
        """Save a checkpoint: when this returns it is on the disk, and until then it does not exist.

        Args:
            components: what to save, by name; read during the call only.
            state: the controller's, plain JSON; a non-finite float in it becomes a string.
            epoch, step: passes and steps completed.
            seconds: training time so far, in seconds.
            value: the goal metric of exactly this state, if a report belongs to it.
            values: those of other goals that rules name.
            reasons: why it is saved.
            label: a name of the user's, ``[A-Za-z0-9][A-Za-z0-9._-]{0,63}``.
            pinned: never delete it.

        Raises:
            TreeError: `components` or `state` hold what a checkpoint cannot; nothing is written.
            SettingError: another argument cannot be; nothing is written.
            SaveError: it did not happen, and is still due; all earlier checkpoints stay.
        """
        self._check_begun()
        content = Content.of(components, state)
        self._emptied()
        more = {"epoch": epoch, "step": step, "seconds": seconds, "value": value, "values": dict(values)}
        return self._drafted(components, reasons, label, pinned, **more).commit(content)

    def draft(
        self,
        *,
        components: Iterable[str],
        epoch: int,
        step: int,
        seconds: float,
        value: float | None,
        values: Mapping[str, float] = MappingProxyType({}),
        reasons: Sequence[str] = (),
        label: str | None = None,
        pinned: bool = False,
    ) -> Draft:
        """Make the directory in which a team writes a checkpoint; rank 0 calls this, and ends it.

        Args:
            components: their names.
            epoch, step, seconds, value, reasons, label, pinned: as of `commit`.

        Raises:
            SettingError: an argument cannot be; nothing is made.
            SaveError: the directory could not be made.
        """
        self._check_begun()
        self._emptied()
        more = {"epoch": epoch, "step": step, "seconds": seconds, "value": value, "values": dict(values)}
        draft = self._drafted(components, reasons, label, pinned, **more)
        try:
            draft.begin()
        except BaseException:
            draft.withdraw()
            raise
        return draft

    def _drafted(
        self, components: Iterable[str], reasons: Sequence[str], label: str | None, pinned: bool, **more: Any
    ) -> Draft:
        info = manifest.draft(
            self._folder,
            writer=self._fence.writer,
            label=label,
            pinned=pinned,
            reasons=reasons,
            components=tuple(components),
            created=now(),
            **more,
        )
        return Draft(self._writing, info)

    def set_aside(self, name: str, why: str) -> str | None:
        """Rename a damaged checkpoint to ``.damaged-<name>``, so that it is not looked at again.

        Returns:
            Why it stays where it is, if nothing can rename it (a lower layer of an overlayfs, immutable).
        """
        self._check_begun()
        with as_save_error("setting a checkpoint aside", self._folder / name):
            self._check_name(name)
            self._fence.check_all()
            target, stuck = commit.set_aside(self._files, self._folder, name)
        self._writing.forget()  # others may share its damage
        if stuck is None:
            self.append("set_aside", name=name, why=why, to=target)
        return stuck

    def make_way(self, name: str) -> bool:
        """The same before `begin`, for a whole one of its name; whether it could be renamed."""
        self._check_owned()
        with as_save_error("setting a checkpoint aside", self._folder / name):
            self._check_name(name)
            return commit.set_aside(self._files, self._folder, name)[1] is None

    def delete(self, names: Iterable[str], *, guarded: Collection[str]) -> dict[str, str]:
        """Delete checkpoints, each wholly or not at all; a file in one that is not ours stays in the trash.

        One that is pinned by hand while this is going on stays. When this returns they are gone; what is
        `LARGE` is removed by a thread, which the next save and the closing wait for.

        Returns:
            Those that nothing can rename (a lower layer of an overlayfs, immutable), and why: they stay.

        Raises:
            OrderError: one of them is guarded, pinned or the newest; nothing is deleted.
            SettingError: one of them does not exist; nothing is deleted.
            DamagedError: one of them has no good manifest, so it may be pinned; nothing is deleted.
            SaveError: an operation failed; what has gone is gone as a whole, and the rest is whole.
        """
        self._check_begun()
        self._emptied()
        gone, size = list(dict.fromkeys(names)), 0
        with as_save_error("deleting checkpoints", self._folder):
            there = {entry.name: order(entry.name) for entry in self._entries() if entry.kind == DIRECTORY}
            top = max(there.values(), default=None)
            newest = {name for name, place in there.items() if place == top}
            left_of_newest = newest.difference(gone)
            pins = read_pins(self._files, self.path) if gone else NO_PINS
            for name in gone:
                self._check_name(name)
                why = (
                    "guarded"
                    if name in guarded
                    else "the newest"
                    if name in newest and not left_of_newest
                    else None
                )
                if why is None and name not in pins.unpinned:
                    info = self._saved(name)
                    size += info.bytes - info.frozen  # which others may share
                    why = "pinned" if info.pinned else None
                if why is not None:
                    raise OrderError(f"{name} is {why}: it is not deleted")
            trash, stuck = commit.discard(self._files, self._folder, gone, self._fence.stays)
            for name in pins.unpinned & set(gone) - stuck.keys():
                forget_pin(self._files, self.path, name)
            if size < LARGE:
                self._tell_left(self._empty(trash))
            else:
                self._files.sync_directory(self._folder)
                self._emptying = Task(partial(self._empty, trash), "stopctl-delete")
                self._emptying.start()
        return stuck

    def _empty(self, trash: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Remove the trash, older one too; returns what is not ours in that of the names given."""
        left = commit.sweep(self._files, self._folder, commit.TRASH)
        return {name: left[name] for name in trash if name in left}

    def _emptied(self, *, closing: bool = False) -> None:
        """Wait for the trash; an error is the next deletion's to meet again, or the closing's to tell."""
        task, self._emptying = self._emptying, None
        if task is None or not task.here:
            return
        try:
            left = task.result()
        except OSError:
            if closing:
                raise
            return
        self._tell_left(left)

    def hold(self, name: str) -> Path | None:
        """Second names of a checkpoint's files, which outlive it, in a directory of their own (`release`).

        None where the file system can give none.

        Raises:
            SaveError: an operation failed; FileNotFoundError as its cause: the checkpoint is gone.
        """
        with as_save_error("linking a checkpoint", self._folder / name):
            return commit.hold(self._files, self._folder, name)

    def release(self, held: Path) -> None:
        """Remove what `hold` has made."""
        commit.release(self._files, held)

    def append(self, event: str, /, **fields: object) -> dict[str, Any]:
        """Add a line to the journal: `event`, the time (ISO 8601, UTC) and plain fields of your own.

        Returns:
            The line.

        Raises:
            TreeError: a field is not plain JSON.
            SaveError: the line was not written.
        """
        journal = self._check_begun()
        if not {"time", "event"}.isdisjoint(fields):
            raise SettingError("time and event of a journal line are the store's: name the field otherwise")
        with as_save_error("writing the journal", self.path / JOURNAL):
            self._fence.check()
            line = {"time": now(), "event": event, "writer": self._fence.writer, **fields}
            journal.append(line)
        if journal.size >= self._full:
            if self._full:
                self._index = self._index or Index(self._files, self.path / JOURNAL)
                self._index.extend()
            self._full = journal.size // FULL * FULL + FULL
        return line

    @property
    def lost(self) -> bool:
        """Whether a later opening has taken the run over, so that this one writes no more."""
        return self._lock.lost

    @property
    def owned(self) -> bool:
        """Whether this process has it open; False in a forked child."""
        return self._lock.owned

    def close(self) -> None:
        """Close the journal and give the lock back; a second time nothing. A forked child keeps it locked."""
        with as_save_error("closing the run", self.path):
            try:
                if self.owned:
                    self._emptied(closing=True)
            finally:
                opened, self._journal = self._journal, None
                try:
                    if opened is not None:
                        opened.close()
                finally:
                    self._lock.release()

    def _next_writer(self) -> int:
        names = [entry.name for entry in self._entries()]
        highest: int = max([(self.meta or {}).get("writer", 0), *(order(name)[2] for name in names)])
        return highest + 1

    def _tell_left(self, left: Mapping[str, tuple[str, ...]]) -> None:
        for directory, names in left.items():
            self.append("left", directory=directory, names=names)

    def _check_owned(self) -> None:
        if not self._lock.owned:
            raise OrderError(f"{self.path} is closed, or was opened by the parent of this forked process")

    def _check_begun(self) -> Journal:
        self._check_owned()
        if self._journal is None:
            raise OrderError(f"{self.path}: call begin() first")
        return self._journal

    def _check_name(self, name: str) -> None:
        if NAME.fullmatch(name) is None or not self._files.exists(self._folder / name):
            raise SettingError(f"there is no checkpoint {name!r} in {self._folder}")
