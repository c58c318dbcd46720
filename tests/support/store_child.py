"""A program that is killed (SIGKILL) at every operation of a commit, a delete or an opening, again and again.

    python store_child.py commit|delete|begin FOLDER      one run in FOLDER for every place to be killed at
    python store_child.py loop RUN                        commits for ever, and says each number

It imports the store alone. Every death is told in a line: the run, how it ended, the last number reported.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from stopctl.store import Leaf, Store
from stopctl.store.files import Files, Handle
from support.recorder import Op, Recorder

SIZE = 100_000


def content(number: int, size: int = SIZE) -> dict[str, Leaf]:
    return {"w": Leaf("U8", (size,), number.to_bytes(1, "little") * size)}


def save(store: Store, number: int, size: int = SIZE) -> str:
    more = {"state": {"number": number}, "seconds": 1.0, "value": None}
    return store.commit(content(number, size), epoch=number, step=number, **more).name  # type: ignore[arg-type]


class Deadly(Recorder):
    """Kills its process before operation number `at`; `half`: in the middle of it, if it is a write."""

    def __init__(self, at: int, half: bool) -> None:
        super().__init__(self._die)
        self.at, self.half = at, half
        self.armed: int | None = None

    def arm(self) -> None:
        self.armed = len(self.ops)

    def _die(self, index: int, op: Op) -> None:
        if self.armed is not None and index - self.armed == self.at and not self.half:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, handle: Handle, data: bytes | bytearray | memoryview) -> int:
        if self.armed is not None and len(self.ops) - self.armed == self.at and self.half:
            Files.write(self, handle, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return int(super().write(handle, data))


def live(what: str, run: Path, files: Deadly, told: int) -> int:
    """A short life: 1 and 2 saved, then what is to be killed; returns how many operations that took."""
    store = Store.lock(run, files=files)
    store.begin({})
    first = save(store, 1)
    save(store, 2)
    os.write(told, b"2")
    if what == "begin":
        store.close()
        (run / "checkpoints" / ".tmp-x").mkdir()
        (run / "checkpoints" / ".tmp-x" / "state.json").write_bytes(b"{")
    files.arm()
    if what == "commit":
        save(store, 3)
        os.write(told, b"3")
    elif what == "delete":
        store.delete([first], guarded=())
        os.write(told, b"d")
    else:
        store = Store.lock(run, files=files)
        store.begin({})
    assert files.armed is not None
    count = len(files.ops) - files.armed
    store.close()
    return count


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "loop":
        store = Store.lock(folder)
        store.begin({})
        for number in range(1, 200):
            save(store, number, 10 * SIZE)
            print(number, flush=True)
        return
    null = os.open(os.devnull, os.O_WRONLY)
    count = live(what, folder / "whole", Deadly(-1, False), null)
    for at in range(count):
        for half in (False, True):
            run = folder / f"{at}-{half}"
            read, told = os.pipe()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    live(what, run, Deadly(at, half), told)
                    code = 0
                finally:
                    os._exit(code)
            os.close(told)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(run, status, os.read(read, 10).decode() or "-", flush=True)
            os.close(read)


if __name__ == "__main__":
    main()
