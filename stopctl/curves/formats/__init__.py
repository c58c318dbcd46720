"""The formats of logs in text, a file each: every module here is one, found by its `FORMAT`."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from stopctl.curves.recording import CurveError, Table
from stopctl.curves.source import Source


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of log.

    Args:
        name: for ``--format``. what: in words.
        sure: how sure its content, then its name, makes it: 0 it is none, 1 it may be, 2 by its shape,
            3 by words that only this tool writes.
        read: its tables.
    """

    name: str
    what: str
    sure: Callable[[Source], int]
    read: Callable[[Source], list[Table]]


@cache
def formats() -> dict[str, Format]:
    """All of them by name."""
    modules = (import_module(f"{__name__}.{one.name}") for one in pkgutil.iter_modules(__path__))
    return {module.FORMAT.name: module.FORMAT for module in modules}


def read_text(source: Source, name: str | None) -> list[Table]:
    """Read a log as the format of this name, or as the one that its content makes surest.

    Raises:
        CurveError: there is no such format, none fits, or it is not what it seemed to be.
    """
    known = formats()
    if name is not None:
        if name not in known:
            raise CurveError(
                f"--format {name}: there is no such format; there are {', '.join(sorted(known))}"
            )
        chosen = known[name]
    elif not source.head:
        raise CurveError(f"{source.name} is empty")
    else:
        chosen = max(known.values(), key=lambda one: one.sure(source))
        if not chosen.sure(source):
            raise CurveError(
                f"{source.name}: what is it? its first line is {source.head[0][:60]!r}; curves come from "
                f"runs, event files and text ({', '.join(sorted(known))}: --format says which)"
            )
    tables = chosen.read(source)
    for table in tables:
        table.notes[:0] = source.notes
    return tables
