"""The State of files that another program writes and reads: taken in, verified, kept, pruned and put back."""

from __future__ import annotations

import mmap
import os
import platform
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from stopctl.core.errors import MismatchError, SettingError, TreeError
from stopctl.store.files import as_save_error
from stopctl.store.lock import LOCK
from stopctl.store.tree import Leaf, Tree, raw

FILES = "files"
"""The one component: path in the folder -> bytes, None for a folder with nothing in it."""

MAPPED = 16 << 20
"""Bytes from which on a file is not read into memory: the save reads it page by page."""


class FolderState:
    """The files below a folder, whatever they hold: what a host has written and will read again.

    ``capture()`` takes every file in, with those of folders inside it, by bytes alone: owners, rights and
    times are the system's. ``restore()`` makes ``into`` just what was saved: whatever else lies there goes.

    Args:
        folder: where the host writes; or a call that returns it as a path, where every save has a folder of
            its own. It need not exist before the first save.
        into: where saved files are put back; made if need be. ``folder`` itself, if that is a path.

    Raises:
        SettingError: a call without ``into``, or an ``into`` that holds the working directory.

    Attributes:
        restored: ``into`` once files were put back, until then None.
    """

    restored: Path | None

    def __init__(self, folder: str | Path | Callable[[], str | Path], into: str | Path | None = None) -> None:
        if into is None and callable(folder):
            raise SettingError("FolderState(call): write into=, the folder where saved files are put back")
        self._folder = folder if callable(folder) else lambda: folder
        self._into = Path(folder if into is None else into).expanduser().absolute()  # type: ignore[arg-type]
        if Path.cwd().resolve().is_relative_to(self._into.resolve()):
            raise SettingError(
                f"{self._into} holds the working directory, and restoring replaces all that lies there: give "
                "a folder of the host's own"
            )
        self.restored = None

    def capture(self) -> dict[str, Tree]:
        """The files as they are now; large ones are mapped, not read.

        Raises:
            TreeError: a link or a device among them, or a run of stopctl's, with the path.
            SaveError: the folder is not there, or cannot be read.
        """
        folder = Path(self._folder()).expanduser()
        with as_save_error("taking in the files", folder):
            found = {name: None if path is None else _leaf(path) for name, path in _walk(folder)}
        return {FILES: found}

    def outline(self) -> dict[str, Tree]:
        """The component without its files, which the host may not have written yet."""
        return {FILES: None}

    def restore(self, components: Mapping[str, Tree], *, allow_missing: Collection[str] = ()) -> None:
        """Check every name, then make ``into`` what was saved, beside it first: it is never half of both.

        Raises:
            MismatchError: other components, or a name that is none of a file below a folder.
            SaveError: the files could not be written.
        """
        if FILES not in components and FILES in allow_missing:
            return
        wrong = [f"{name}: saved, but not given" for name in components.keys() - {FILES, *allow_missing}]
        if FILES not in components:
            wrong.append(f"{FILES}: given, but not saved")
        else:
            wrong += _faults(components[FILES])
        if wrong:
            raise MismatchError("the saved state does not fit a folder of files:\n  " + "\n  ".join(wrong))
        with as_save_error("putting the files back", self._into):
            self._put(components[FILES])
        self.restored = self._into

    def version(self) -> Mapping[str, int]:
        """Files have no cheap counter."""
        return {}

    def versions(self) -> Mapping[str, str]:
        """Python's; what wrote the files says its own in them."""
        return {"python": platform.python_version()}

    def close(self) -> None:
        """Give nothing back: the host's files stay where they are."""

    def _put(self, files: Mapping[str, Leaf | None]) -> None:
        at = self._into
        fresh, old = (at.with_name(f".{at.name}.{end}") for end in ("new", "old"))
        for path in (fresh, old, at):
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                raise MismatchError(f"{path} is no folder: move it away, or put the files elsewhere (into=)")
        if at.exists():
            _refuse_runs(at)
        for left in (fresh, old):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name, leaf in files.items():
            path = fresh / name
            (path if leaf is None else path.parent).mkdir(parents=True, exist_ok=True)
            if leaf is not None:
                path.write_bytes(raw(leaf))
        if at.exists():
            at.rename(old)
        fresh.rename(at)
        shutil.rmtree(old, ignore_errors=True)


def _walk(folder: Path) -> Iterator[tuple[str, Path | None]]:
    """Every file's path below the folder, sorted; a folder with nothing in it has no file."""
    todo = [folder]
    while todo:
        at = todo.pop()
        with os.scandir(at) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        if not found and at != folder:
            yield at.relative_to(folder).as_posix(), None
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                todo.append(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                sort = "a link" if entry.is_symlink() else "neither a file nor a folder"
                raise TreeError(f"{entry.path} is {sort}: only files are saved; put the file itself there")
            elif entry.name == LOCK:
                raise TreeError(
                    f"{at} is a run of stopctl's: every save would hold the ones before; let it lie beside "
                    f"{folder}, not in it"
                )
            else:
                yield Path(entry.path).relative_to(folder).as_posix(), Path(entry.path)


def _refuse_runs(folder: Path) -> None:
    for at, _, names in os.walk(folder):
        if LOCK in names:
            raise MismatchError(
                f"{at} is a run of stopctl's, and lies where files are to be put back: move it"
            )


def _leaf(path: Path) -> Leaf:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size >= MAPPED else file.read()
    return Leaf("U8", (len(data),), memoryview(data))


def _faults(files: Tree) -> list[str]:
    """Why what was saved is no folder of files, if it is none."""
    if type(files) is not dict:
        return [f"{FILES}: saved as {type(files).__name__}, no dict of files"]
    wrong = []
    for name, leaf in files.items():
        at = f"{FILES}/{name}"
        if not _is_below(name):
            wrong.append(f"{at}: a file of that name would not lie below the folder")
        elif leaf is not None and not (
            isinstance(leaf, Leaf) and leaf.dtype == "U8" and len(leaf.shape) == 1
        ):
            wrong.append(f"{at}: no file's bytes")
        elif any(files.get(str(above)) is not None for above in PurePosixPath(name).parents):
            wrong.append(f"{at}: lies in a file")
    return wrong


def _is_below(name: object) -> bool:
    return (
        type(name) is str
        and "\0" not in name
        and all(part not in ("", ".", "..") for part in name.split("/"))
    )
