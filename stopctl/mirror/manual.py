"""What a person does with a mirror by hand: bring a run there, or back."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypeAlias

from stopctl.core.errors import DamagedError, NotARunError, SettingError
from stopctl.mirror.mirror import Mirror
from stopctl.mirror.objects import Counted, probe
from stopctl.mirror.remote import Remote
from stopctl.store.reader import Reader
from stopctl.store.rundir import RESTORING
from stopctl.store.store import Store

Tick: TypeAlias = Callable[[int], object]
Progress: TypeAlias = Callable[[int], AbstractContextManager[Tick]]
"""Given the bytes that are to go, what is told those that have gone."""


def quiet(total: int) -> AbstractContextManager[Tick]:
    """Tells nobody."""
    return nullcontext(lambda size: None)


class Moved(NamedTuple):
    """The names of checkpoints that went, newest first; those that had been there; damaged ones, and why."""

    gone: tuple[str, ...]
    there: tuple[str, ...]
    damaged: dict[str, str]


def push(directory: str | os.PathLike[str], store: Remote, progress: Progress = quiet) -> Moved:
    """Bring every checkpoint of a run that no process has open into a mirror; the newest first.

    What is there is not uploaded again, so that a second call goes on where the first was broken off. Nothing
    that was committed there is deleted.

    Args:
        directory: the run's.
        store: the mirror's operations.
        progress: makes a bar.

    Raises:
        NotARunError: no run is there.
        LockedError: a process has it open, or has just claimed the mirror.
        SettingError: another directory has written to the mirror since, or the store keeps no writers apart.
        SaveError, OSError: the store does not answer.
    """
    Reader(directory)
    counted = Counted(store)
    mirror = Mirror(counted)
    local = Store.lock(directory)
    try:
        look = mirror.look()
        if look.newest is not None and not look.is_followed_by(local.meta):
            raise SettingError(
                f"{store.url} was written by process {look.newest.pid} on {look.newest.host} since this "
                "directory was: give a URL of its own, or bring that run into a new directory with "
                "`stopctl mirror pull`"
            )
        probe(store)
        number = mirror.claim(local.path, look, local.next_writer)
        local.begin(mirror.mark, number)
        listing = local.list()
        there = {commit.name for commit in look.commits}
        lacking = [info for info in reversed(listing.good) if info.name not in there]
        damaged = {damage.name: damage.why for damage in listing.damaged}
        gone: list[str] = []
        with progress(sum(info.bytes for info in lacking)) as counted.tick:
            for info in lacking:
                try:
                    mirror.push(info.path)
                except DamagedError as error:
                    damaged[info.name] = str(error)
                else:
                    gone.append(info.name)
                    local.append("mirrored", name=info.name)
        mirror.describe()
        mirror.prune(there | {info.name for info in listing.good})
        mirror.journal()
        mirror.end()
    finally:
        local.close()
    names = (info.name for info in reversed(listing.good))
    return Moved(tuple(gone), tuple(name for name in names if name in there), damaged)


def pull(directory: str | os.PathLike[str], store: Remote, progress: Progress = quiet) -> Moved:
    """Bring a run with all its checkpoints back from a mirror, into a directory that has none.

    A second call goes on where the first was broken off.

    Args:
        directory: an empty or a new one.
        store: the mirror's operations.
        progress: makes a bar.

    Raises:
        NotARunError: nothing is mirrored there, or the directory has other files.
        LockedError: a process has it open.
        SettingError: it has a run.
        DamagedError: no checkpoint of the mirror is good.
        SaveError, OSError: the store does not answer, or the disk fails.
    """
    counted = Counted(store)
    mirror = Mirror(counted)
    commits = mirror.look().commits
    if not commits:
        raise NotARunError(f"{store.url} is no run: no checkpoint is mirrored there")
    local = Store.lock(directory)
    try:
        if local.meta is not None and RESTORING not in local.meta:
            raise SettingError(f"{local.path} holds a run: name a new directory")
        total = 0
        for commit in commits:
            try:
                total += mirror.info(commit).bytes
            except DamagedError:
                continue  # `restore` tells why
        with progress(total) as counted.tick:
            restored = mirror.restore(local.path, lambda infos: [info.name for info in infos])
    finally:
        local.close()
    return Moved(tuple(info.name for info in reversed(restored.infos)), (), dict(restored.damaged))
