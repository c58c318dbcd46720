"""Every byte of a checkpoint against its hash, in constant memory."""

from __future__ import annotations

from collections.abc import Callable

from stopctl.store import CheckpointInfo, DamagedError
from stopctl.store.assembly import read_parts
from stopctl.store.errors import ROTTEN, as_damage
from stopctl.store.files import FILES
from stopctl.store.hashed import check_file, read_whole
from stopctl.store.manifest import LIMIT, MANIFEST, PARTS, parse


def check(info: CheckpointInfo, tick: Callable[[int], object] = lambda size: None) -> None:
    """Read each file of a checkpoint, from the disk where the system allows that; a few MiB at a time.

    Args:
        info: one that `Reader.list` gave.
        tick: told the bytes of each file once it is read.

    Raises:
        DamagedError: a file is not what was written; the text names it.
        OSError: for a reason that lies in this process, not in the checkpoint.
    """
    with as_damage(MANIFEST, ROTTEN):
        data = read_whole(FILES, info.path / MANIFEST, LIMIT)
    found, facts = parse(data, info.path.parent)
    if found.name != info.name:
        raise DamagedError(f"{MANIFEST}: it is that of {found.name}")
    tick(len(data))
    if PARTS in facts:
        facts |= read_parts(FILES, found, facts[PARTS]).files
    for name, fact in facts.items():
        with as_damage(name, ROTTEN):
            check_file(FILES, info.path / name, fact)
        tick(fact.size)
