"""What saving and resuming cost, ours and the peers side by side, against writing and reading the bytes."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import logging
import math
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from update_overhead import aligned, machine

from stopctl import Every, Last
from stopctl.demo.train import quiet
from stopctl.store import Leaf, Store

TENSORS = 40
BLOCK = 4 << 20
"""Bytes a write or a read of the plain file."""
RAW, PLAIN = "raw write + fsync", "plain read + SHA-256"
HEAD = 100
"""The share of the state that is trained where the rest is frozen: one part in so many."""

EXPLAINED = """\
Every case saves the same amount of float32 numbers in 40 tensors, all of which change before each save, and
reads the newest save back. The cases take turns in rounds, every round begins with another one, and the first
round is not counted: buffers and files are cold in it. What the cases before have left in the page cache is
written out (sync) before each timing, so that nobody waits for another's bytes; older saves are deleted off
the clock, but for our Run, which deletes by itself. Files are read from the page cache.

  total    until the call has returned, or until the save in the background is done
  blocked  how long the loop waits: the call, and for our Run the loop's boundary after it
  resume   reading the newest save back into tensors

All figures are medians with the smallest and the largest; ratios are those of the medians, total and blocked
to one file of the same bytes with one fsync, resume to reading that file and hashing it. What the peers do is
what a user writes: torch.save, safetensors and tf flush nothing to the disk, and none of them hashes.

"1 % trained" is the same state of which one part in 100 changes: the rest is frozen.

Examples:
  python benchmarks/save.py --sizes 200 1000 --rounds 7 --markdown
  python benchmarks/save.py --sizes 200 --cases stopctl safetensors
"""


@dataclass(slots=True)
class Cost:
    """Seconds of one save, and the bytes that it has put into new files."""

    total: float
    blocked: float
    written: int


@dataclass(slots=True)
class Case:
    """One way to save: what changes the state, saves it, and reads it back, and what must be closed."""

    touch: Callable[[], None]
    save: Callable[[Path], Cost]
    load: Callable[[Path], object]


@dataclass(slots=True)
class Told:
    """What the rounds of one case took, in seconds; and bytes."""

    total: list[float] = field(default_factory=list)
    blocked: list[float] = field(default_factory=list)
    resume: list[float] = field(default_factory=list)
    written: list[int] = field(default_factory=list)


Make = Callable[[int, Path, ExitStack], Case]
"""Bytes of the state and a folder -> a case."""


def timed(call: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def blocking(save: Callable[[Path], object]) -> Callable[[Path], Cost]:
    """A save that returns when it is done."""

    def run(path: Path) -> Cost:
        spent = timed(lambda: save(path))
        return Cost(spent, spent, size_of(path))

    return run


def size_of(path: Path) -> int:
    """Bytes below a path."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def torch_state(size: int) -> tuple[dict[str, Any], Callable[[], None]]:
    """Tensors of so many bytes, and what changes them all."""
    import torch

    state = {f"layer{i}": torch.rand(size // TENSORS // 4) for i in range(TENSORS)}

    def touch() -> None:
        for tensor in state.values():
            tensor.add_(1e-3)

    return state, touch


def raw(size: int, folder: Path, stack: ExitStack) -> Case:
    """One file, one fsync; resuming it is reading and hashing it."""
    state, touch = torch_state(size)
    views = [memoryview(tensor.numpy()).cast("B") for tensor in state.values()]

    def save(path: Path) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        for view in views:
            for start in range(0, len(view), BLOCK):
                os.write(fd, view[start : start + BLOCK])
        os.fsync(fd)
        os.close(fd)

    def load(path: Path) -> bytes:
        with path.open("rb", buffering=0) as file:
            buffer = memoryview(bytearray(path.stat().st_size))
            at = 0
            while count := file.readinto(buffer[at : at + BLOCK]):
                at += count
        return hashlib.sha256(buffer).digest()

    return Case(touch, blocking(save), load)


def torch_save(size: int, folder: Path, stack: ExitStack) -> Case:
    """torch.save and torch.load."""
    import torch

    state, touch = torch_state(size)
    return Case(touch, blocking(lambda path: torch.save(state, path)), torch.load)


def safetensors(size: int, folder: Path, stack: ExitStack) -> Case:
    """save_file and load_file of safetensors.torch."""
    from safetensors.torch import load_file, save_file

    state, touch = torch_state(size)

    def load(path: Path) -> None:
        for name, tensor in load_file(path).items():  # mapped: only read when used
            state[name].copy_(tensor)

    return Case(touch, blocking(lambda path: save_file(state, path)), load)


@contextmanager
def one_process() -> Iterator[None]:
    """DCP says at every call that it is alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def dcp(size: int, folder: Path, stack: ExitStack) -> Case:
    """torch.distributed.checkpoint.save and load, in one process."""
    from torch.distributed import checkpoint

    state, touch = torch_state(size)
    stack.enter_context(one_process())

    def save(path: Path) -> None:
        checkpoint.save(state, checkpoint_id=path, no_dist=True)

    return Case(touch, blocking(save), lambda path: checkpoint.load(state, checkpoint_id=path, no_dist=True))


def dcp_async(size: int, folder: Path, stack: ExitStack) -> Case:
    """torch.distributed.checkpoint.async_save, which wants a process group."""
    import torch.distributed as dist
    from torch.distributed import checkpoint

    state, touch = torch_state(size)
    stack.enter_context(one_process())
    if not dist.is_initialized():
        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        stack.callback(dist.destroy_process_group)

    def save(path: Path) -> Cost:
        start = time.perf_counter()
        future = checkpoint.async_save(state, checkpoint_id=path)
        blocked = time.perf_counter() - start
        future.result()
        return Cost(time.perf_counter() - start, blocked, size_of(path))

    return Case(touch, save, lambda path: checkpoint.load(state, checkpoint_id=path, no_dist=True))


def orbax(size: int, folder: Path, stack: ExitStack) -> Case:
    """StandardCheckpointer of orbax, which saves in the background."""
    import jax.numpy as jnp
    import numpy as np
    import orbax.checkpoint as ocp

    state = {
        f"layer{i}": jnp.asarray(np.random.rand(size // TENSORS // 4).astype("f4")) for i in range(TENSORS)
    }
    saver = ocp.StandardCheckpointer()
    stack.callback(saver.close)

    def touch() -> None:
        for name in state:
            state[name] = (state[name] + 1e-3).block_until_ready()

    def save(path: Path) -> Cost:
        start = time.perf_counter()
        saver.save(path, state)
        blocked = time.perf_counter() - start
        saver.wait_until_finished()
        return Cost(time.perf_counter() - start, blocked, size_of(path))

    return Case(touch, save, lambda path: saver.restore(path, state))


def tensorflow(size: int, folder: Path, stack: ExitStack) -> Case:
    """tf.train.CheckpointManager."""
    import tensorflow as tf

    values = [tf.Variable(tf.random.uniform([size // TENSORS // 4])) for _ in range(TENSORS)]
    checkpoint = tf.train.Checkpoint(values=values)

    def touch() -> None:
        for value in values:
            value.assign_add(tf.fill(value.shape, 1e-3))

    def save(path: Path) -> None:
        tf.train.CheckpointManager(checkpoint, str(path), max_to_keep=1).save()

    def load(path: Path) -> None:
        manager = tf.train.CheckpointManager(checkpoint, str(path), max_to_keep=1)
        checkpoint.restore(manager.latest_checkpoint).assert_consumed()

    return Case(touch, blocking(save), load)


def store(size: int, folder: Path, stack: ExitStack) -> Case:
    """Our store by itself: hashed, every fsync, verified when it is read."""
    state, touch = torch_state(size)
    opened = Store.lock(folder)
    stack.callback(opened.close)
    opened.begin({})
    saves: list[Any] = []

    def save(path: Path) -> Cost:
        leaves = {
            name: Leaf("F32", tuple(tensor.shape), memoryview(tensor.numpy()).cast("B"))
            for name, tensor in state.items()
        }
        fields: dict[str, Any] = {
            "state": None,
            "epoch": 0,
            "step": len(saves),
            "seconds": 0.0,
            "value": None,
        }
        spent = timed(lambda: saves.append(opened.commit({"model": leaves}, **fields)))
        opened.delete([info.name for info in saves[-2:-1]], guarded=())
        return Cost(spent, spent, saves[-1].bytes)

    return Case(touch, save, lambda path: opened.load(saves[-1]))


def run(mode: bool | str, *, frozen: bool = False) -> Make:
    """Our Run for PyTorch: report() with a save at every step, and its opening."""

    def make(size: int, folder: Path, stack: ExitStack) -> Case:
        import torch

        from stopctl_torch import Run, load

        state, touch = torch_state(size)
        model = torch.nn.Module()
        for i, (name, tensor) in enumerate(state.items()):
            model.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=not frozen or i == 0))
        if frozen:
            model.head = torch.nn.Parameter(torch.rand(size // HEAD // 4))

        def moves() -> None:
            if frozen:
                with torch.no_grad():
                    model.head.add_(1e-3)
            else:
                touch()

        optimizer = torch.optim.SGD([part for part in model.parameters() if part.requires_grad])
        given: dict[str, Any] = {
            "model": model, "optimizer": optimizer, "save": Every(steps=1), "keep": Last(2), "stop": None
        }  # fmt: skip
        opened = Run(folder, async_save=mode, **given)
        opened.open()
        stack.callback(opened.close)
        steps: Iterator[int] = iter(opened.steps(10**9))
        number = next(steps)

        def save(path: Path) -> Cost:
            nonlocal number
            began = time.time_ns() - 10_000_000  # the clock of files is coarse
            start = time.perf_counter()
            opened.report(val_loss=1.0 / number)
            number = next(steps)
            blocked = time.perf_counter() - start
            while not opened.checkpoints or opened.checkpoints[-1].step != number - 1:
                time.sleep(0.0005)
            total = time.perf_counter() - start
            files = [file.stat() for file in opened.checkpoints[-1].path.iterdir()]
            return Cost(total, blocked, sum(file.st_size for file in files if file.st_mtime_ns > began))

        for _ in range(3 if frozen else 0):  # until there is something to be linked
            moves()
            save(folder)
        return Case(moves, save, lambda path: load(folder, model=model, which="latest"))

    return make


CASES: dict[str, Make] = {
    RAW: raw,
    "stopctl: Store.commit": store,
    "stopctl: Run.report": run(False),
    "stopctl: Run.report, async_save=True": run(True),
    'stopctl: Run.report, async_save="overlap"': run("overlap"),
    "stopctl: Run.report, 1 % trained": run(False, frozen=True),
    "torch.save": torch_save,
    "safetensors": safetensors,
    "DCP save": dcp,
    "DCP async_save": dcp_async,
    "orbax StandardCheckpointer": orbax,
    "tf CheckpointManager": tensorflow,
}
OURS = [name for name in CASES if name.startswith("stopctl")]


def made(
    names: Sequence[str], size: int, folder: Path, stack: ExitStack
) -> tuple[dict[str, Case], list[str]]:
    """The cases that can be made here, and why the others cannot."""
    cases, skipped = {}, []
    for i, name in enumerate(names):
        place = folder / str(i)
        place.mkdir()
        try:
            with quiet():
                cases[name] = CASES[name](size, place, stack)
        except ImportError as error:
            skipped.append(f"{name}: {error}")
    return cases, skipped


def measure(
    names: Sequence[str],
    size: int,
    rounds: int,
    folder: Path,
    tick: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Told], list[str]]:
    """All cases in turns; one round more than asked for, of which the first is not counted."""
    with ExitStack() as stack:
        cases, skipped = made(names, size, folder, stack)
        told = {name: Told() for name in cases}
        order = list(cases)
        places: dict[str, Path] = {}
        for number in range(rounds + 1):
            turn = number % len(order)
            for name in order[turn:] + order[:turn]:
                tick(f"round {number} of {rounds}: {name}")
                case, place = cases[name], folder / f"{order.index(name)}-{number}"
                case.touch()
                gc.collect()
                os.sync()
                cost = case.save(place)
                if name in places:
                    remove(places[name])
                places[name] = place
                os.sync()
                resume = timed(lambda case=case, place=place: case.load(place))  # type: ignore[misc]
                if number:
                    told[name].total.append(cost.total)
                    told[name].blocked.append(cost.blocked)
                    told[name].written.append(cost.written)
                    told[name].resume.append(resume)
    return told, skipped


def remove(path: Path) -> None:
    """An older save, where the case has not removed it."""
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    """Median, smallest and largest, to three digits."""
    least, middle, most = (scale * f(values) for f in (min, median, max))
    digits = max(0, 2 - math.floor(math.log10(middle))) if middle else 0
    return f"{middle:.{digits}f} [{least:.{digits}f}..{most:.{digits}f}]"


def table(told: dict[str, Told], size: int, *, markdown: bool) -> str:
    """A row a case."""
    head = [
        "saved",
        "MB written",
        "total, s",
        "GB/s",
        "to raw",
        "blocked, ms",
        "to raw",
        "resume, s",
        "to read",
    ]
    rows = [head]
    base = told.get(RAW)
    for name, one in told.items():
        ratios = ["-", "-", "-"]
        if base is not None:
            ratios = [
                f"{median(ours) / median(theirs):.2f}x"
                if kind != "blocked"
                else f"{median(ours) / median(theirs):.3f}x"
                for kind, ours, theirs in (
                    ("total", one.total, base.total),
                    ("blocked", one.blocked, base.total),
                    ("resume", one.resume, base.resume),
                )
            ]
        rows.append(
            [
                name if name != RAW else f"{RAW}; {PLAIN}",
                f"{median(one.written) / 1e6:.1f}",
                spread(one.total),
                f"{size / median(one.total) / 1e9:.2f}",
                ratios[0],
                spread(one.blocked, 1e3),
                ratios[1],
                spread(one.resume),
                ratios[2],
            ]
        )
    return aligned(rows, markdown=markdown)


def versions() -> list[str]:
    """Of what is compared."""
    found = []
    for name in ("torch", "safetensors", "orbax-checkpoint", "tensorflow"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def bar(done: int, of: int, text: str) -> None:
    """One line on standard error, where somebody looks at it."""
    if sys.stderr.isatty():
        filled = "#" * (30 * done // of)
        sys.stderr.write(f"\r\033[K[{filled:<30}] {text}" if done < of else "\r\033[K")
        sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="save.py",
        description=__doc__,
        epilog=EXPLAINED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--sizes", nargs="+", type=float, default=[200.0, 1000.0], metavar="MB", help="of the state"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="rounds that count (default: 7)")
    parser.add_argument(
        "--cases", nargs="+", default=[""], metavar="TEXT", help="those with TEXT in their names"
    )
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="on which disk (default: the temporary one)"
    )
    parser.add_argument("--markdown", action="store_true", help="the tables as Markdown")
    parser.add_argument("--json", action="store_true", help="all figures as JSON, nothing else")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: at least 1, better 7")
    if min(given.sizes) < 0.1:
        parser.error(f"--sizes {min(given.sizes):g}: at least 0.1 MB")
    names = [name for name in CASES if name == RAW or any(text in name for text in given.cases)]
    if names == [RAW] and RAW not in given.cases:
        parser.error(f"--cases {' '.join(given.cases)}: write parts of {', '.join(CASES)}")
    of = len(given.sizes) * len(names) * (given.rounds + 1)
    done = 0

    def tick(text: str) -> None:
        nonlocal done
        bar(done, of, text)
        done += 1

    told, skipped = {}, []
    for megabytes in given.sizes:
        size = round(megabytes * 1e6) // (4 * TENSORS * HEAD) * (4 * TENSORS * HEAD)
        with tempfile.TemporaryDirectory(prefix="stopctl-save-", dir=given.directory) as folder:
            told[size], skipped = measure(names, size, given.rounds, Path(folder), tick)
    bar(1, 1, "")
    where = machine()
    if given.json:
        sizes = {
            str(size): {
                name: {kind: getattr(one, kind) for kind in Told.__slots__} for name, one in cases.items()
            }
            for size, cases in told.items()
        }
        print(
            json.dumps(
                {"machine": where, "rounds": given.rounds, "skipped": skipped, "bytes": sizes}, indent=1
            )
        )
        return 0
    for size, cases in told.items():
        title = f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e6:.1f} MB"
        print(f"### {title}\n" if given.markdown else f"{title}:")
        print(table(cases, size, markdown=given.markdown) + "\n")
    notes = [", ".join(f"{name} {value}" for name, value in where.items()), ", ".join(versions())]
    notes.append(f"medians of {given.rounds} rounds with the smallest and the largest")
    print("\n".join(f"- {note}" if given.markdown else note for note in [*notes, *skipped]))
    return 0


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # more copies slower on few cores
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    sys.exit(main())
