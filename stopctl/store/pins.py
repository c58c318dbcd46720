"""Pins that are set and taken away after the save: an empty file each in ``pins/``.

A checkpoint is never changed, so its manifest says only how it was saved. ``pins/NAME.pinned`` pins it,
``pins/NAME.unpinned`` takes back what its manifest says; where both are there, it is pinned. No file is ever
written over, so anybody may pin beside a running writer, which looks again before and after it deletes.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stopctl.store.files import FILE, Files, as_damage
from stopctl.store.manifest import CheckpointInfo

PINS = "pins"
PINNED, UNPINNED = ".pinned", ".unpinned"


class Pins(NamedTuple):
    """The names of checkpoints that were pinned and unpinned by hand."""

    pinned: frozenset[str]
    unpinned: frozenset[str]

    def as_pinned(self, info: CheckpointInfo) -> CheckpointInfo:
        """The checkpoint as it is pinned now."""
        pinned = info.name in self.pinned or (info.pinned and info.name not in self.unpinned)
        return info if pinned == info.pinned else replace(info, pinned=pinned)


NO_PINS = Pins(frozenset(), frozenset())


def read_pins(files: Files, path: Path) -> Pins:
    """What ``pins/`` in the run's directory `path` says; nothing if it is not there."""
    names: list[str] = []
    with as_damage(path / PINS), contextlib.suppress(FileNotFoundError):
        names = [entry.name for entry in files.entries(path / PINS) if entry.kind == FILE]
    return Pins(*(_ending(names, suffix) for suffix in (PINNED, UNPINNED)))


def _ending(names: list[str], suffix: str) -> frozenset[str]:
    return frozenset(name.removesuffix(suffix) for name in names if name.endswith(suffix))


def is_pinned_by_hand(files: Files, path: Path, name: str) -> bool:
    """Whether there is a pin for this one, now."""
    return files.exists(path / PINS / f"{name}{PINNED}")


def write_pin(files: Files, path: Path, name: str, pinned: bool) -> None:
    """Pin or unpin a checkpoint; when this returns, it is on the disk."""
    folder = path / PINS
    with contextlib.suppress(FileExistsError):
        files.mkdir(folder)
    files.sync_directory(path)
    now, before = (PINNED, UNPINNED) if pinned else (UNPINNED, PINNED)
    with contextlib.suppress(FileExistsError):
        files.close(files.create(folder / f"{name}{now}"))
    files.sync_directory(folder)
    with contextlib.suppress(FileNotFoundError):
        files.unlink(folder / f"{name}{before}")
    files.sync_directory(folder)


def forget_pin(files: Files, path: Path, name: str) -> None:
    """A checkpoint is gone: nothing is to be said of it any more."""
    for suffix in (PINNED, UNPINNED):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            files.unlink(path / PINS / f"{name}{suffix}")
