"""Reading a run's directory, without a lock and without trust."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from stopctl.core.errors import DamagedError, NotARunError
from stopctl.store import manifest, safetensors, strict
from stopctl.store.assembly import Assembly, check_sizes, read_parts, read_verified
from stopctl.store.chunks import listed, where
from stopctl.store.files import (
    DIRECTORY,
    FILES,
    ROTTEN,
    Entry,
    Files,
    as_damage,
    damage_of,
    read_whole,
    require_posix,
)
from stopctl.store.hashed import Bytes, FileFact, read_file
from stopctl.store.index import Piece, pieces
from stopctl.store.journal import Line, Lines, newest_first, parse
from stopctl.store.manifest import (
    CHUNKS,
    MANIFEST,
    NAME,
    PACKED,
    PARTS,
    STATE,
    STATE_LIMIT,
    CheckpointInfo,
)
from stopctl.store.packed import unpack
from stopctl.store.pins import read_pins
from stopctl.store.rundir import CHECKPOINTS, FORMAT, JOURNAL, found_instead, local, read_meta
from stopctl.store.tree import Array, Leaf, Tree, named, unflatten

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Damage:
    """A checkpoint that is not as its manifest says, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The checkpoints of a run: the good ones, oldest first by (step, epoch, writer), and the others."""

    good: tuple[CheckpointInfo, ...]
    damaged: tuple[Damage, ...]


class Reader:
    """A run's directory, read only; a writer may be at work in it.

    Args:
        path: the run's directory.
        files: the file operations; a test gives its own.

    Raises:
        NotARunError: no run.json there, or one of a newer format.
        DamagedError: run.json is not what stopctl writes.
    """

    path: Path
    """The run's directory, absolute."""
    meta: Any
    """run.json: a dict (None only in a Store on a new run, before `begin`)."""

    def __init__(self, path: str | os.PathLike[str], *, files: Files = FILES) -> None:
        self._open(path, files)
        self.meta = read_meta(files, self.path)
        if self.meta is None:
            raise NotARunError(f"{self.path} is no run: {found_instead(files, self.path)}")

    def _open(self, path: str | os.PathLike[str], files: Files) -> None:
        require_posix()
        text = os.fspath(path)
        self.path = Path(os.path.abspath(local(text) if text.startswith("~") or ":/" in text else text))
        self._files = files
        self._folder = self.path / CHECKPOINTS

    @property
    def place(self) -> Path:
        """What people are told where the run is."""
        return self.path

    def list(self) -> Listing:
        """Every checkpoint there is, its manifest verified, its files there and of the right sizes.

        Names that are not a checkpoint's are passed over. The hashes of the files are `load`'s to check.

        Raises:
            OSError: for a reason that lies in this process, not in a checkpoint (permission, open files).
        """
        known: dict[str, CheckpointInfo] = {}
        deleted: set[str] = set()
        while True:
            good, damaged, before = [], [], len(deleted)
            for entry in self._entries():
                try:
                    known[entry.name] = known.get(entry.name) or self._inspect(entry)
                    good.append(known[entry.name])
                except DamagedError as error:
                    if self._is_there(entry.name):
                        damaged.append(Damage(entry.name, str(error)))
                    else:
                        deleted.add(entry.name)
            if len(deleted) == before:  # else a writer was just here, and what it saved may not be seen yet
                break
        pins = read_pins(self._files, self.path)
        good.sort(key=lambda info: (info.step, info.epoch, info.writer))
        return Listing(tuple(map(pins.as_pinned, good)), tuple(damaged))

    def names(self) -> set[str]:
        """The names of what looks like a checkpoint, nothing verified."""
        return {entry.name for entry in self._entries()}

    def refreshed(self, infos: Iterable[CheckpointInfo]) -> tuple[CheckpointInfo, ...]:
        """Those of `infos` that are still there, pinned as they are now."""
        names, pins = self.names(), read_pins(self._files, self.path)
        return tuple(pins.as_pinned(info) for info in infos if info.name in names)

    def load(
        self, info: CheckpointInfo, only: Collection[str] | None = None, *, rank: int | None = None
    ) -> tuple[dict[str, Tree], strict.JsonValue]:
        """The components and the controller's state of a checkpoint, every file's SHA-256 verified.

        Args:
            info: one that `list` gave.
            only: names of the components to build, where not all are wanted; names it does not have are
                passed over. Everything is verified all the same.
            rank: None: of a checkpoint that a team has saved every array in one, and of the components that
                each rank has for itself those of rank 0. A rank: those of that rank, if there was one;
                arrays that were saved in pieces are `Sharded`, and a piece's data is read, and verified, when
                it is first asked for. What one process has saved by itself does not say which components
                those are: there every rank finds all.

        Raises:
            DamagedError: the checkpoint is not what was written; the text names it and the damage.
            OSError: for a reason that lies in this process, not in the checkpoint.
        """
        with damage_of(info.name):
            info, facts = self._manifest(info.name)
            leaves: dict[str, Array] = {}
            state = self._state(info.name, facts[STATE])
            for file in sorted(facts.keys() - {STATE, PARTS, CHUNKS}):
                _add(leaves, safetensors.decode(self._arrays(info, file, facts, state)))
            if CHUNKS in facts:
                read_verified(self._files, info.path, CHUNKS, facts[CHUNKS])
            skeleton: strict.JsonValue = state["components"]
            separate: strict.JsonValue = {}
            arrays: Mapping[str, Leaf] = {}
            if PARTS in facts:
                assembly = Assembly(self._files, info, facts[PARTS])
                _add(leaves, assembly.whole() if rank is None else assembly.sharded(rank))
                if rank and rank < assembly.parts.ranks:
                    skeleton = {k: v for k, v in skeleton.items() if k not in assembly.parts.per_rank}
                    separate, arrays = assembly.components(rank)
                    if twice := skeleton.keys() & separate.keys():
                        raise DamagedError(f"{min(twice)[:200]!r} is in two files")
            if only is not None:
                skeleton = {name: node for name, node in skeleton.items() if name in only}
                separate = {name: node for name, node in separate.items() if name in only}
            return unflatten(skeleton, leaves) | unflatten(separate, arrays), state["state"]

    @overload
    def journal(self) -> Lines[Line]: ...

    @overload
    def journal(self, read: Callable[[bytes], T | None]) -> Lines[T]: ...

    def journal(self, read: Callable[[bytes], Any] = parse) -> Lines[Any]:
        """The journal's lines, oldest first; a torn last one is passed over, garbled ones counted.

        Args:
            read: what makes something else of a line's bytes than its object; None of a garbled one.
        """
        return Lines(self._files, self.path / JOURNAL, read)

    def pieces(self, start: int = 0) -> Iterator[Piece]:
        """The journal's bytes from the beginning of a line on, cut where journal.index tells of a block."""
        return pieces(self._files, self.path / JOURNAL, start)

    def journal_stamp(self) -> tuple[int, int, int, int] | None:
        """What tells the journal from another file, its size and when it was written; None without one."""
        with contextlib.suppress(OSError):
            return self._files.stamp(self.path / JOURNAL)
        return None

    def newest_lines(self) -> Iterator[dict[str, Any]]:
        """The journal's good lines, newest first; reads from the end, and only as far as they are taken."""
        return newest_first(self._files, self.path / JOURNAL)

    def _entries(self) -> Iterator[Entry]:
        with as_damage(self._folder), contextlib.suppress(FileNotFoundError):
            yield from (entry for entry in self._files.entries(self._folder) if NAME.fullmatch(entry.name))

    def _is_there(self, name: str) -> bool:
        try:
            return self._files.exists(self._folder / name)
        except OSError:  # what the disk cannot tell of is damaged, not deleted
            return True

    def _inspect(self, entry: Entry) -> CheckpointInfo:
        if entry.kind != DIRECTORY:
            raise DamagedError("not a directory")
        info, facts = self._manifest(entry.name)
        check_sizes(self._files, info.path, facts)
        if PARTS in facts:
            check_sizes(self._files, info.path, read_parts(self._files, info, facts[PARTS]).files)
        if not info.components:
            return replace(info, components=tuple(self._state(entry.name, facts[STATE])["components"]))
        return info

    def _saved(self, name: str) -> CheckpointInfo:
        with damage_of(name):
            return self._manifest(name)[0]

    def _manifest(self, name: str) -> tuple[CheckpointInfo, dict[str, FileFact]]:
        with as_damage(MANIFEST, ROTTEN):
            data = read_whole(self._files, Path(self._folder, name, MANIFEST), manifest.LIMIT)
        return manifest.parse_as(name, data, self._folder)

    def _arrays(
        self, info: CheckpointInfo, file: str, facts: Mapping[str, FileFact], state: Mapping[str, Any]
    ) -> Bytes:
        """The bytes of a safetensors file, verified as they are on the disk."""
        at = self._folder / info.name
        told = partial(
            where, self._files, at / file, facts[file].size, partial(listed, self._files, at, facts, file)
        )
        with as_damage(file, ROTTEN):
            data = read_file(self._files, at / file, facts[file], told)
        return data if file != PACKED else unpack(data, info.unpacked or 0, file, named(state["components"]))

    def _state(self, name: str, fact: FileFact) -> dict[str, strict.JsonValue]:
        if fact.size > STATE_LIMIT:
            raise DamagedError(f"{STATE}: {fact.size} bytes, more than {STATE_LIMIT}")
        with as_damage(STATE, ROTTEN):
            data = read_file(self._files, self._folder / name / STATE, fact)
        try:
            state = strict.loads(data)
        except ValueError as error:
            raise DamagedError(f"{STATE}: {error}") from error
        if type(state) is not dict or state.keys() != {"format", "components", "state"}:
            raise DamagedError(f"{STATE}: no object of format, components and state")
        if state["format"] != FORMAT or type(state["components"]) is not dict:
            raise DamagedError(f"{STATE}: not of format {FORMAT}")
        return state


def _add(leaves: dict[str, Array], more: Mapping[str, Array]) -> None:
    if twice := leaves.keys() & more.keys():
        raise DamagedError(f"{min(twice)[:200]!r} is in two files")
    leaves |= more
