"""What a person does to a run from outside: pin and unpin a checkpoint, take the run from its writer."""

from __future__ import annotations

import os
from dataclasses import replace

from stopctl.core.errors import SettingError
from stopctl.store.files import FILES, Files, as_save_error
from stopctl.store.manifest import CheckpointInfo
from stopctl.store.pins import PINS, forget_pin, write_pin
from stopctl.store.reader import Reader
from stopctl.store.store import Store


def pin(directory: str | os.PathLike[str], name: str, *, files: Files = FILES) -> CheckpointInfo:
    """Never delete this checkpoint, whatever the run's keep rule says; works beside its writer.

    Args:
        directory: the run's directory.
        name: the checkpoint's label (the newest one of it) or the name of its directory.
        files: the file operations; a test gives its own.

    Raises:
        NotARunError: no run is there.
        SettingError: it has no such checkpoint, or has it no more.
        SaveError: the pin could not be written.
    """
    return _set(directory, name, files, pinned=True)


def unpin(directory: str | os.PathLike[str], name: str, *, files: Files = FILES) -> CheckpointInfo:
    """Let the run's keep rule decide on a checkpoint that was pinned by `pin` or by ``run.save(name)``.

    The arguments and the errors are those of `pin`.
    """
    return _set(directory, name, files, pinned=False)


def unlock(directory: str | os.PathLike[str], *, files: Files = FILES) -> int:
    """Take a run from the process that has it open (this one, too), and give it back at once.

    That process may go on, but saves and deletes no more: its next write raises SaveError. Whatever it saved
    before stays. To take the run and go on with it, write ``Run(..., take_over=True)`` instead.

    Returns:
        The writer number that this used up.

    Raises:
        NotARunError: no run is there.
    """
    Reader(directory, files=files)
    store = Store.lock(directory, take_over=True, files=files)
    try:
        writer = store.begin({})
        store.append("unlock")
    finally:
        store.close()
    return writer


def _set(directory: str | os.PathLike[str], name: str, files: Files, *, pinned: bool) -> CheckpointInfo:
    reader = Reader(directory, files=files)
    good = reader.list().good
    matching = [info for info in good if name in (info.label, info.name)]
    if not matching:
        have = ", ".join(info.label or info.name for info in good[-5:]) or "none"
        raise SettingError(f"{reader.path} has no checkpoint {name!r}; its newest are: {have}")
    info = matching[-1]
    with as_save_error("pinning a checkpoint", reader.path / PINS):
        write_pin(files, reader.path, info.name, pinned)
        if not files.exists(info.path):
            forget_pin(files, reader.path, info.name)
            raise SettingError(f"{info.name} has just been deleted by the run")
    return replace(info, pinned=pinned)
