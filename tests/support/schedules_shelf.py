"""A store in memory: what `Store`, `Draft` and `write_part` do, without files; each step is a place for faults."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stopctl.core.errors import LockedError, SaveError
from stopctl.store import CheckpointInfo, Files, Listing, Store, manifest, strict
from stopctl.store.parts import PartFact
from stopctl.store.rundir import CHECKPOINTS
from stopctl.team.follower import Follower
from support.schedules_stage import Wrong


@dataclass
class Kept:
    """A checkpoint: what it says, what all ranks share, what each has for itself, the controller's state."""

    info: CheckpointInfo
    shared: dict[str, Any]
    own: dict[int, dict[str, Any]]
    state: bytes


@dataclass
class Folder:
    """A run's directory."""

    meta: dict[str, Any] | None = None
    locked: bool = False
    lines: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[str, Kept] = field(default_factory=dict)
    unfinished: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)


FOLDERS: dict[Path, Folder] = {}
"""The disk; a schedule begins with an empty one."""


def step(path: Path) -> None:
    """Each step that changes something; what a test puts here may raise OSError, or end the process."""


def stepped(path: Path) -> None:
    try:
        step(path)
    except OSError as error:
        raise SaveError(f"{path}: {error.strerror}", path) from error


class Looking:
    """What the writer and the others read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def folder(self) -> Folder:
        return FOLDERS[self.path]

    def load(
        self, info: CheckpointInfo, only: Collection[str] | None = None, *, rank: int | None = None
    ) -> tuple[dict[str, Any], Any]:
        kept = self.folder.kept[info.name]
        return {**kept.shared, **kept.own.get(rank or 0, {})}, strict.loads(kept.state)

    def list(self) -> Listing:
        infos = [kept.info for kept in self.folder.kept.values()]
        return Listing(tuple(sorted(infos, key=lambda i: (i.step, i.epoch, i.writer))), ())


class ShelfFollower(Looking, Follower):
    """`Follower` of a `Shelf`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.meta = None

    def join(self, writer: int, rank: int, patience: float) -> None:
        self.meta = self.folder.meta
        if self.meta is None or self.meta["writer"] != writer:
            raise Wrong(f"rank {rank} does not find writer {writer}")


class Shelf(Looking, Store):
    """The one writer."""

    lost = False
    owned = False  # each life is a process of its own

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        folder = FOLDERS.setdefault(path, Folder())
        stepped(path)
        if folder.locked:
            raise LockedError(f"{path} is open already")
        folder.locked = True
        self.meta = folder.meta
        self._writer = 0

    def begin(self, meta: Mapping[str, Any]) -> int:
        stepped(self.path)
        self._writer = 1 + (self.meta or {}).get("writer", 0)
        self.folder.meta = self.meta = {**(self.meta or {}), **meta, "writer": self._writer}
        stepped(self.path)
        self.folder.unfinished.clear()
        return self._writer

    def names(self) -> set[str]:
        return set(self.folder.kept)

    def refreshed(self, infos: Iterable[CheckpointInfo]) -> tuple[CheckpointInfo, ...]:
        return tuple(info for info in infos if info.name in self.folder.kept)

    def newest_lines(self) -> Iterator[dict[str, Any]]:
        return reversed(self.folder.lines)

    def append(self, event: str, /, **fields: object) -> dict[str, Any]:
        stepped(self.path)
        line = {"time": "2026-01-01T00:00:00+00:00", "event": event, "writer": self._writer, **fields}
        self.folder.lines.append(line)
        return line

    def set_aside(self, name: str, why: str) -> str | None:
        stepped(self.path)
        del self.folder.kept[name]
        return None

    def delete(self, names: Iterable[str], *, guarded: Collection[str]) -> dict[str, str]:
        for name in names:
            if name in guarded:
                raise Wrong(f"{name} is guarded")
            stepped(self.path)
            del self.folder.kept[name]
        return {}

    def draft(self, *, components: Iterable[str], **facts: Any) -> ShelfDraft:  # type: ignore[override]
        info = manifest.draft(
            self.path / CHECKPOINTS,
            writer=self._writer,
            components=tuple(components),
            created="2026-01-01T00:00:00+00:00",
            **facts,
        )
        stepped(self.path)
        return ShelfDraft(self.folder, replace(info, bytes=100))

    def commit(self, components: Mapping[str, Any], *, state: Any, **facts: Any) -> CheckpointInfo:
        draft = self.draft(components=components, **facts)
        draft.write(components, state=state)
        return draft.publish()

    def close(self) -> None:
        self.folder.locked = False


class ShelfDraft:
    """A save on its way."""

    def __init__(self, folder: Folder, info: CheckpointInfo) -> None:
        if info.name in folder.kept:
            raise Wrong(f"{info.name} is there already")
        self.info = info
        self.directory = info.path.with_name(f".tmp-{info.name}")
        self._folder = folder
        self._kept: Kept | None = None
        folder.unfinished[self.directory.name] = {}

    def write(self, components: Mapping[str, Any], *, state: Any, per_rank: Collection[str] = ()) -> None:
        stepped(self.directory)
        shared = {name: tree for name, tree in components.items() if name not in per_rank}
        own = {name: tree for name, tree in components.items() if name in per_rank}
        data = strict.dumps(strict.plain(state, "state"))
        self._kept = Kept(self.info, shared, {0: own}, data)

    def publish(self, parts: Sequence[PartFact] = (), ranks: int = 1) -> CheckpointInfo:
        stepped(self.directory)
        written = self._folder.unfinished[self.directory.name]
        told = {part.rank for part in parts if part.bytes}
        if self._kept is None or written.keys() != told:
            raise Wrong(f"parts of {sorted(written)} are there, those of {sorted(told)} were told")
        self._kept.own |= written
        self.info = self._kept.info = replace(self.info, ranks=ranks)
        del self._folder.unfinished[self.directory.name]
        self._folder.kept[self.info.name] = self._kept
        stepped(self.info.path)
        return self.info

    def withdraw(self) -> None:
        try:
            stepped(self.info.path)
        except SaveError:
            if self.info.name not in self._folder.kept:
                return  # left to the next opening
        self._folder.unfinished.pop(self.directory.name, None)
        self._folder.kept.pop(self.info.name, None)


def shelf_part(
    files: Files,
    directory: Path,
    rank: int,
    components: Mapping[str, Any],
    per_rank: Collection[str],
    *,
    verify: bool = False,
) -> PartFact:
    """`write_part` into a `Shelf`."""
    own = {name: components[name] for name in per_rank}
    if not own:
        return PartFact(rank, 0, "", 0)
    stepped(directory)
    unfinished = FOLDERS[directory.parent.parent].unfinished
    if directory.name not in unfinished:
        raise SaveError(f"{directory} is gone", directory)
    unfinished[directory.name][rank] = own
    return PartFact(rank, 10, "", 10)
