"""A file for people, written beside its place and renamed into it: whole or not there."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from stopctl.core.errors import SettingError
from stopctl.store.files import FILES, as_save_error
from stopctl.store.hashed import Bytes, write_file


def publish(
    target: Path, parts: Sequence[Bytes], what: str, *, ours: Callable[[Path], bool] = lambda _: False
) -> None:
    """Write ``parts`` in their order as the file ``target``, flushed to the disk before it has its name.

    Args:
        what: for the errors: ``"the report"``.
        ours: whether a file that is there may be replaced; asked again just before it is.

    Raises:
        SettingError: ``target`` is a directory, or a file that may not be replaced.
        SaveError: it could not be written; what was there is there, and nothing else.
    """
    refuse_to_replace(target, what, ours)
    temporary = target.with_name(f".tmp-{secrets.token_hex(4)}-{target.name}"[:200])
    with as_save_error(what, target):
        try:
            write_file(FILES, temporary, parts)
            refuse_to_replace(target, what, ours)
            FILES.rename(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                FILES.unlink(temporary)
            raise
        FILES.sync_directory(target.parent)


def refuse_to_replace(target: Path, what: str, ours: Callable[[Path], bool]) -> None:
    """SettingError unless ``target`` is free, or a file that may be replaced."""
    if not target.parent.is_dir():
        raise SettingError(f"{target.parent} is no directory: make it first, or write {what} elsewhere")
    if target.is_dir():
        raise SettingError(f"{target} is a directory: name a file in it")
    if FILES.exists(target) and not ours(target):
        raise SettingError(f"{target} is there already: choose another name, or replace it with --force")
