"""What a store must refuse, each once; Loss for the first thing that it does all the same."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stopctl.core.errors import DamagedError, LockedError, NotARunError, OrderError, SaveError, StopctlError
from stopctl.store import Piece, Sharded, Store, manual, strict, write_part
from stopctl.store.files import Handle
from stopctl.store.manifest import MANIFEST, parse
from support.faults.promises import Loss, Undriven, begun, commit


@contextlib.contextmanager
def refused(what: str, kind: type[StopctlError]) -> Iterator[None]:
    try:
        yield
    except kind:
        return
    except Exception as error:
        raise Loss(f"{what}: {error!r}") from error
    raise Loss(f"not refused: {what}")


class Full(Undriven):
    def free(self, path: Path) -> int:
        return 1 << 10


class Lying(Undriven):
    """A disk that changes a byte of what it is given, and says that all is well."""

    def write(self, handle: Handle, data: bytes | bytearray | memoryview) -> int:
        wrong = bytearray(data)
        if handle.path.suffix == ".safetensors":
            wrong[-1] ^= 1
        return super().write(handle, wrong)


def refusals(scratch: Path) -> int:
    """Every refusal once; returns how many."""
    run = scratch / "run"
    store = begun(run, Undriven())
    names = {number: commit(store, number, pinned=number == 1).name for number in (1, 2, 3, 4)}
    with refused("deleting the newest", OrderError):
        store.delete([names[4]], guarded=())
    with refused("deleting a pinned one", OrderError):
        store.delete([names[1]], guarded=())
    with refused("deleting a guarded one", OrderError):
        store.delete([names[2]], guarded=[names[2]])
    (run / "checkpoints" / names[4].replace("0004", "0009").replace("40-", "90-")).mkdir()
    with refused("taking the name of an empty directory", SaveError):
        commit(store, 9)
    (run / "checkpoints" / names[4].replace("0004", "0009").replace("40-", "90-")).rmdir()
    meta = json.loads((run / "run.json").read_bytes())
    (run / "run.json").write_text(json.dumps(meta | {"writer": 7}))
    with refused("a save after another writer has begun", SaveError):
        commit(store, 5)
    (run / "run.json").write_text(json.dumps(meta))
    if len(store.list().good) != 4:
        raise Loss("something refused was done")
    store.close()
    with refused("a manifest in another spelling", DamagedError):
        parse(_spelt(store.list().good[0].path / MANIFEST), run)
    _pins_hold(run)
    _locked_out(run)
    for files, options, what in (
        (Full(), {}, "a save on a full disk"),
        (Lying(), {"verify_writes": True}, "a save that reads back as something else"),
    ):
        store = begun(run, files, **options)
        with refused(what, SaveError):
            commit(store, 5)
        if any(path.name.startswith(".tmp-") for path in (run / "checkpoints").iterdir()):
            raise Loss(f"{what} leaves its directory")
        store.close()
    _teams_are_whole(run)
    foreign = scratch / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    with refused("a directory of somebody else's", NotARunError):
        begun(foreign, Undriven()).close()
    return 14


def _spelt(path: Path) -> bytes:
    """That manifest with its fields in another order, its hash that of itself."""
    body = json.loads(path.read_bytes())
    del body["sha256"]
    text = strict.dumps(dict(reversed(body.items())))
    return b'{"sha256":"%s",' % hashlib.sha256(text).hexdigest().encode() + text[1:]


def _pins_hold(run: Path) -> None:
    """What is pinned by hand stays, also where the disk does not answer whether it is."""
    store = begun(run, Undriven())
    name = commit(store, 7).name
    commit(store, 8)
    manual.pin(run, name, files=Undriven())
    store.delete([name], guarded=())
    if name not in store.names():
        raise Loss("deleted, although pinned by hand")
    real = os.lstat

    def silent(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith(".pinned"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, **options)

    os.lstat = silent
    try:
        with refused("deleting what may be pinned", SaveError):
            store.delete([name], guarded=())
    finally:
        os.lstat = real
        store.close()
    if name not in store.names():
        raise Loss("deleted, although it may be pinned")


def _teams_are_whole(run: Path) -> None:
    """Of two ranks one lacks its half, its part or a file of it, or both have the same half."""
    store = begun(run, Undriven())
    for lacks, at in {"a piece": (), "a rank": None, "all but a piece": (0,), "a file": (1,)}.items():
        counters = {"epoch": 11, "step": 110, "seconds": 1.0, "value": None}
        draft = store.draft(components=["a"], **counters)

        def half(*at: int) -> dict[str, Any]:
            return {"a": Sharded("U8", (2,), [Piece((place,), (1,), b"x") for place in at])}

        first = half(0, 1) if at is None else half(0)
        draft.write(first, state=None)
        told = [write_part(Undriven(), draft.directory, 0, first, ())]
        if at is not None:
            told.append(write_part(Undriven(), draft.directory, 1, half(*at) if at else {}, ()))
        if lacks == "a file":
            os.unlink(draft.directory / "part-00001.safetensors")
        with refused(f"a team's save that lacks {lacks}", SaveError):
            draft.publish(told, ranks=2)
        draft.withdraw()
    store.close()


def _locked_out(run: Path) -> None:
    fd = os.open(run / "run.lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with refused("a run that another has locked", LockedError):
            Store.lock(run, files=Undriven()).close()
    finally:
        os.close(fd)
