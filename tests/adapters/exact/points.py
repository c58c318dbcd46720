"""Beside a training program, in its process: kill it at a chosen point, and write down what it did.

The points (``STOPCTL_KILL_AT``) are words. Most are named by the program (``batch 4 2``). Others are file
operations of the store: ``save 5 before rename 1`` is before the first rename from the beginning of epoch 5's
save to that of the next one, ``open in journal 1`` in the middle of the first line that the opening writes to
the journal. Operations are those of `Files`; ``journal`` is a write to the journal, ``change`` is each that
changes something.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stopctl import Every, OnBest, Patience
from stopctl.store.files import FILES, Files, Handle

READS = {"exists", "entries", "size", "free", "open", "read"}
CHANGES = {name for name in vars(Files) if not name.startswith("_")} - READS

SHAPE = [0, 9, 8, 8.5, 7, 6, 6.5, 7, 6.7, 8, 9, 9, 9]
"""Added to the loss of each epoch (ten times), so that the new bests are epochs 1, 2, 4 and 5 whatever the
rounding, patience 4 ends the run after epoch 9 of 12 (no drop of a learning rate lies beyond it), and epochs
3 and 7 are not saved."""

EPOCHS = len(SHAPE) - 1

WHOLE = "all of it"
"""The variant in which every kind of state matters, and whose epochs have that shape."""

RULES: dict[str, Any] = {"stop": Patience(4), "save": Every(epochs=2) | OnBest()}


def setting(name: str) -> str:
    """What the tests ask for, such as ``STOPCTL_KILL_VARIANT``; empty by default."""
    return os.environ.get(f"STOPCTL_KILL_{name}", "")


def base() -> Path:
    """Where everything is written: the run's own directory is ``run`` in it."""
    return Path(setting("DIRECTORY"))


def die() -> None:
    """At once: no handler, no finally, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def reached(point: str) -> None:
    """The program is at a point of its own."""
    if setting("AT") == point:
        die()


def began(epoch: int) -> None:
    """A pass begins: a line in the file ``passes``, which is on the disk before the pass goes on."""
    with open(base() / "passes", "a") as file:
        file.write(f"{epoch}\n")
        file.flush()
        os.fsync(file.fileno())


def finished(found: Mapping[str, Any]) -> None:
    """What the program ended with: a hash of each value, by name."""
    (base() / "result.json").write_text(json.dumps({name: digest(value) for name, value in found.items()}))


def digest(value: Any) -> str:
    """SHA-256 of plain values, arrays, tensors and variables in dicts, lists and tuples, down to the bit."""
    sha = hashlib.sha256()
    _fold(sha.update, value)
    return sha.hexdigest()


def _fold(update: Callable[[bytes], None], value: Any) -> None:
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
    elif isinstance(value, dict | list | tuple):
        update(f"{type(value).__name__} {len(value)}".encode())
        for item in value.items() if isinstance(value, dict) else value:
            _fold(update, item)
    else:
        update(f"{type(value).__name__} {value!r};".encode())


def arm() -> None:
    """Have the store's file operations counted, where the point is one of them."""
    match setting("AT").split():
        case ["open", when, operation, number]:
            _patch("", when, operation, int(number))
        case ["save", epoch, when, operation, number]:
            _patch(f".tmp-epoch-{int(epoch):04}-", when, operation, int(number))


def _patch(begin: str, when: str, operation: str, number: int) -> None:
    """Die at one operation; counting begins with the directory ``begin*`` and ends with the next save's."""
    inside, left = not begin, number

    def patched(name: str) -> Callable[..., Any]:
        real = getattr(FILES, name)

        def call(*args: Any) -> Any:
            nonlocal inside, left
            path = args[0].path if isinstance(args[0], Handle) else args[0]
            if name == "mkdir" and path.name.startswith(".tmp-epoch-"):
                inside = bool(begin) and path.name.startswith(begin)
            kinds = {name, "change", "journal" if (name, path.name) == ("write", "journal.jsonl") else name}
            left -= inside and operation in kinds
            if left:
                return real(*args)
            if when == "in":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            elif when == "after":
                real(*args)
            return die()

        return call

    for name in CHANGES:
        setattr(FILES, name, patched(name))
