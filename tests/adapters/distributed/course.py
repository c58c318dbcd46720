"""What every rank of a distributed program does in these tests besides training: tell how it goes, and disturb.

``STOPCTL_RANKS_PLAN`` is JSON: a list of disturbances, each for one start of the ranks:
``{"start": 0, "rank": 1, "at": "batch 2 3", "do": "kill"}``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # what an optimizer imports on its first use: here, once for all children
from torch import distributed


def setting(name: str, default: str = "") -> str:
    """What the tests ask for, such as ``STOPCTL_RANKS_TIMEOUT``."""
    return os.environ.get(f"STOPCTL_RANKS_{name}", default)


class Course:
    """This rank's way through one start of the ranks: it says how far it is, and disturbs where it shall."""

    def __init__(self) -> None:
        self.base = Path(setting("DIRECTORY"))
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.start = int(setting("START", os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")))
        self._plan = [
            p for p in json.loads(setting("PLAN", "[]")) if (p["start"], p["rank"]) == (self.start, self.rank)
        ]
        self.tell("pid", os.getpid())

    def tell(self, kind: str, value: Any) -> None:
        """A file of this start and rank, whole at once."""
        path = self.base / f"{kind}-{self.start}-{self.rank}"
        draft = path.with_name(f".{path.name}")
        draft.write_text(json.dumps(value))
        draft.rename(path)

    def reached(self, point: str) -> None:
        """The program is at a point of its own."""
        for planned in self._plan:
            if planned["at"] == point:
                self._disturb(planned)

    def _disturb(self, planned: Mapping[str, Any]) -> None:
        match planned["do"]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "term":
                os.kill(os.getpid(), signal.SIGTERM)
            case "stick":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "raise":
                raise ValueError("a fault of this rank")
            case "exit":
                sys.exit(7)
            case "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
            case "late":
                time.sleep(planned["seconds"])


def begin() -> Course:
    """Join the other ranks."""
    course = Course()
    torch.set_num_threads(1)
    if course.size == 1:
        return course
    course.reached("init")
    seconds = timedelta(seconds=float(setting("TIMEOUT", "120")))
    method = setting("INIT", "env://")
    distributed.init_process_group("gloo", method, seconds, course.size, course.rank)
    course.tell("joined", True)
    course.reached("joined")
    return course


def seeded(course: Course) -> None:
    """Generators of each rank's own; whoever goes on must find the saved ones."""
    saved = [path for path in (course.base / "run" / "checkpoints").glob("*") if path.name[0] != "."]
    seed = 100 * course.rank + 10_000 * bool(saved)
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def told(course: Course, run: Any, parts: Mapping[str, Any]) -> None:
    """Write down what was reached, and what the best checkpoint holds."""
    rngs = {
        "rng.torch": torch.get_rng_state(),
        "rng.python": random.getstate(),
        "rng.numpy": np.random.get_state(legacy=False),
    }
    now = run.progress
    counted = [now.epoch, now.step, now.reports, now.best, now.best_epoch, now.best_step, now.value]
    ended = {name: digest(part) for name, part in {**parts, **rngs}.items()}
    best = run.restore_best()
    restored = [best.epoch, best.step, best.value, digest(parts["parameters"])]
    course.reached("end")
    course.tell("result", {**ended, "counted": counted, "stopped": str(run.stopped), "best": restored})


def digest(value: Any) -> str:
    """SHA-256 of plain values, arrays and tensors in dicts, lists and tuples, down to the bit."""
    sha = hashlib.sha256()

    def fold(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            value = value.detach().numpy()
        if isinstance(value, np.ndarray):
            sha.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
        elif isinstance(value, dict | list | tuple):
            sha.update(f"{len(value)} of {type(value).__name__}".encode())
            for item in value.items() if isinstance(value, dict) else value:
                fold(item)
        else:
            sha.update(f"{type(value).__name__} {value!r};".encode())

    fold(value)
    return sha.hexdigest()


def one_start(train: Callable[[Course], None]) -> None:
    """Train as one rank of one start, and tell how it has ended."""
    course = begin()
    try:
        train(course)
    except BaseException as error:
        course.tell("error", [type(error).__name__, str(error), time.time()])
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def script(main: Callable[[], None]) -> None:
    """The same as a program that was started by its name."""
    try:
        main()
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None
