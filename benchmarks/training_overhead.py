"""What control costs a training: time inside our calls and hooks, and how long a save is waited for."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from update_overhead import aligned, machine

from stopctl import Every, Last
from stopctl.demo import problem
from stopctl.demo.data import DataError, Dataset, load
from stopctl.demo.train import quiet
from stopctl.store import Reader

MODES: dict[str, bool | str] = {"waiting": False, "copied": True, "overlapped": "overlap"}
FRAMEWORKS = {
    "torch": ("stopctl.demo.torch_loop", "stopctl_torch"),
    "tensorflow": ("stopctl.demo.tf_loop", "stopctl_tf"),
}
BLOCK = 4 << 20
"""Bytes a write of the raw file."""

EXPLAINED = """\
Two tables, each for both frameworks and for async_save = False (waiting), True (copied), "overlap".

MNIST: the demo's MLP, trained as `stopctl demo` does, with the defaults of Run (save=Every(epochs=1) |
OnBest(), stop=Patience(10) | NonFinite()). Inside is the time spent in open, the loop's own steps, step(),
report(), close, and the hooks of the optimizer, over the wall time of the whole. The bare loop has the same
training and nothing of ours; the ratio to it contains what a thread beside costs, too, and is noisy.

Blocked: a state of about 200 MB (three layers and Adam), saved after every step. Blocked is how much later
the loop goes on: report(), the loop boundary after it, and what the next step waits in a hook. Its ratio is
to writing the same bytes to one file with one fsync, in the same round. The step beside is a whole training
step while the save is written, over one with nothing beside it. The modes take turns, and each round begins
with another one; all figures are medians with the smallest and the largest. The first round, with cold
buffers, is told by itself.

Examples:
  STOPCTL_MNIST=folder python benchmarks/training_overhead.py --markdown
  python benchmarks/training_overhead.py --frameworks torch --tables blocked --rounds 15
"""

Beside = dict[str, Any]


@dataclass(slots=True)
class Clock:
    """Seconds spent inside what was handed to it, by the clock ``now``."""

    now: Callable[[], float] = time.perf_counter
    inside: float = 0.0
    calls: int = 0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, on this clock."""

        def on_the_clock(*args: Any, **named: Any) -> Any:
            start = self.now()
            try:
                return call(*args, **named)
            finally:
                self.inside += self.now() - start
                self.calls += 1

        return on_the_clock


@contextmanager
def hooks(framework: str, clock: Clock) -> Iterator[None]:
    """What runs inside the user's own calls is on the clock, too; TensorFlow has nothing of the kind."""
    if framework != "torch":
        yield
        return
    from stopctl_torch.marks import Marks
    from stopctl_torch.overlap import Hook
    from stopctl_torch.watch import Watch

    count, wait, step = Marks._count, Hook.__call__, Watch.stepped
    Marks._count = lambda self, name: clock.timed(count(self, name))  # type: ignore[method-assign]
    Hook.__call__ = clock.timed(wait)  # type: ignore[method-assign]
    Watch.stepped = clock.timed(step)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Marks._count, Hook.__call__, Watch.stepped = count, wait, step  # type: ignore[method-assign]


def module(framework: str) -> tuple[Any, Any]:
    """The demo's loop, on one thread, and the adapter's Run."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with quiet():
        loop = importlib.import_module(FRAMEWORKS[framework][0])
        loop.one_thread()
        return loop, importlib.import_module(FRAMEWORKS[framework][1]).Run


def bare(loop: Any, data: Dataset, epochs: int) -> float:
    """Seconds of the loop without us."""
    start = time.perf_counter()
    model, optimizer = loop.build(problem.initial_weights(0))
    for epoch in range(1, epochs + 1):
        order = problem.order(0, epoch, len(data.train_y))
        loop.train_one_epoch(model, optimizer, data.train_x, data.train_y, order, lambda: None)
        loop.evaluate(model, data.valid_x, data.valid_y)
    return time.perf_counter() - start


def controlled(
    framework: str, loop: Any, run_of: Any, data: Dataset, epochs: int, mode: bool | str, directory: Path
) -> tuple[float, float]:
    """Seconds of the whole, and those inside our calls and hooks."""
    clock = Clock()
    with hooks(framework, clock):
        start = time.perf_counter()
        model, optimizer = loop.build(problem.initial_weights(0))
        run = clock.timed(run_of)(directory, model=model, optimizer=optimizer, async_save=mode)
        clock.timed(run.open)()
        step, report = clock.timed(run.step), clock.timed(run.report)
        passes = iter(run.epochs(epochs))
        following = clock.timed(partial(next, passes, None))
        while (epoch := following()) is not None:
            order = problem.order(0, epoch, len(data.train_y))
            loop.train_one_epoch(model, optimizer, data.train_x, data.train_y, order, step)
            loss, _ = loop.evaluate(model, data.valid_x, data.valid_y)
            report(val_loss=loss)
        clock.timed(run.close)()
        return time.perf_counter() - start, clock.inside


@dataclass(slots=True)
class Training:
    """Seconds of each round."""

    bare: list[float] = field(default_factory=list)
    whole: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MODES})
    inside: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MODES})


def measure_training(framework: str, data: Dataset, epochs: int, rounds: int, folder: Path) -> Training:
    """The bare loop and every mode, in rounds that begin with another one each time."""
    loop, run_of = module(framework)
    told = Training()
    names = ["bare", *MODES]
    bare(loop, data, 1)  # traces and warms up
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            gc.collect()
            if name == "bare":
                told.bare.append(bare(loop, data, epochs))
                continue
            directory = folder / f"{framework}-{name}-{i}"
            whole, inside = controlled(framework, loop, run_of, data, epochs, MODES[name], directory)
            told.whole[name].append(whole)
            told.inside[name].append(inside)
    return told


def torch_task(width: int) -> tuple[Beside, Callable[[], object], list[memoryview]]:
    """Three layers and Adam: what Run is given, a training step, and the bytes of the state."""
    import torch

    torch.manual_seed(0)
    layers = [torch.nn.Linear(width, width) for _ in range(3)]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = torch.randn(64, width)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    step()
    moments = [v for s in optimizer.state.values() for v in s.values() if v.dim()]
    tensors = [*model.state_dict().values(), *moments]
    views = [memoryview(t.detach().reshape(-1).view(torch.uint8).numpy()) for t in tensors]
    return {"model": model, "optimizer": optimizer}, step, views


def tensorflow_task(width: int) -> tuple[Beside, Callable[[], object], list[memoryview]]:
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((width,)), *(keras.layers.Dense(width) for _ in range(3))])
    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(model.trainable_variables)
    x = tf.random.stateless_normal((64, width), (0, 0))

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True)))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    step()
    views = [memoryview(v.numpy()).cast("B") for v in [*model.variables, *optimizer.variables] if v.ndim]
    return {"model": model, "optimizer": optimizer}, step, views


TASKS = {"torch": torch_task, "tensorflow": tensorflow_task}


def raw_write(path: Path, views: Sequence[memoryview]) -> float:
    """Seconds to write the bytes to a new file and to have them on the disk."""
    start = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for view in views:
            for at in range(0, len(view), BLOCK):
                file.write(view[at : at + BLOCK])
        os.fsync(file.fileno())
    took = time.perf_counter() - start
    path.unlink()
    return took


@dataclass(slots=True)
class Blocked:
    """Seconds of each round, by mode."""

    megabytes: float
    raw: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    blocked: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MODES})
    took: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MODES})
    beside: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MODES})


def measure_blocked(framework: str, megabytes: int, rounds: int, folder: Path) -> Blocked:
    """A run for each mode over one state; they take turns with each other and with the raw write."""
    _, run_of = module(framework)
    clock = Clock()
    width = round((megabytes * 1e6 / 4 / 9) ** 0.5)  # three layers, each with two moments
    with ExitStack() as stack:
        stack.enter_context(hooks(framework, clock))
        given, step, views = TASKS[framework](width)
        told = Blocked(sum(map(len, views)) / 1e6)
        runs = {}
        for name, mode in MODES.items():
            rules = {"stop": None, "save": Every(steps=1), "keep": Last(1)}
            run = run_of(folder / f"{framework}-{name}", **given, **rules, async_save=mode)
            passes = iter(stack.enter_context(run).steps(10**9))
            next(passes)
            runs[name] = run, passes
        names = ["raw", "step", *MODES]
        for i in range(rounds):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                gc.collect()
                if name == "raw":
                    told.raw.append(raw_write(folder / "raw", views))
                    continue
                step()
                start = time.perf_counter()
                if name == "step":
                    step()
                    told.step.append(time.perf_counter() - start)
                    continue
                run, passes = runs[name]
                run.report(val_loss=1.0)
                next(passes)
                going_on, clock.inside = time.perf_counter(), 0.0
                step()
                done = time.perf_counter()
                for thread in threading.enumerate():
                    if thread.name == "stopctl-save":
                        thread.join()
                told.blocked[name].append(going_on - start + clock.inside)
                told.beside[name].append(done - going_on)
    for name in MODES:
        lines = Reader(folder / f"{framework}-{name}").journal()
        told.took[name] = [line["took"] for line in lines if line["event"] == "saved"]
    return told


def spread(values: Sequence[float], unit: float = 1e3) -> str:
    """``12.3 [11.0..15.2]``."""
    return f"{median(values) * unit:.1f} [{min(values) * unit:.1f}..{max(values) * unit:.1f}]"


def training_table(measured: dict[str, Training], *, markdown: bool) -> str:
    """Milliseconds inside, their share, and the whole against the bare loop."""
    rows = [["MNIST MLP", "inside ms", "of the whole", "whole s", "against the bare loop"]]
    for framework, told in measured.items():
        base = median(told.bare)
        rows.append([f"{framework}, bare loop", "", "", spread(told.bare, 1), "1.00x"])
        for name in MODES:
            whole, inside = told.whole[name], told.inside[name]
            share = median([i / w for i, w in zip(inside, whole, strict=True)])
            times = [spread(inside), f"{share:.2%}", spread(whole, 1), f"{median(whole) / base:.2f}x"]
            rows.append([f"{framework}, {name}", *times])
    return aligned(rows, markdown=markdown)


def blocked_table(measured: dict[str, Blocked], *, markdown: bool) -> str:
    """Milliseconds and ratios, the first round apart."""
    rows = [["one save", "blocked ms", "/ raw", "the first ms", "to the disk ms", "/ raw", "step beside"]]
    for framework, told in measured.items():
        raw, step = median(told.raw), median(told.step)
        what = f"{framework}, {told.megabytes:.0f} MB, raw write + fsync"
        rows.append([what, "", "", "", spread(told.raw), "1.00x", "1.00x"])
        for name in MODES:
            blocked, took, beside = (
                part[name][1:] or part[name] for part in (told.blocked, told.took, told.beside)
            )
            ratios = [f"{median(blocked) / raw:.3f}x", f"{told.blocked[name][0] * 1e3:.0f}"]
            later = [spread(took), f"{median(took) / raw:.2f}x", f"{median(beside) / step:.2f}x"]
            rows.append([f"{framework}, {name}", spread(blocked), *ratios, *later])
    return aligned(rows, markdown=markdown)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="training_overhead.py",
        description=__doc__,
        epilog=EXPLAINED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--frameworks", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS))
    parser.add_argument("--tables", nargs="+", choices=["mnist", "blocked"], default=["mnist", "blocked"])
    parser.add_argument("--rounds", type=int, default=7, help="of saves; every case is in each (default: 7)")
    parser.add_argument("--trainings", type=int, default=3, help="rounds of MNIST (default: 3)")
    parser.add_argument("--epochs", type=int, default=12, help="of MNIST (default: 12)")
    parser.add_argument(
        "--megabytes", type=int, default=200, help="of the state that is saved (default: 200)"
    )
    parser.add_argument(
        "--directory", type=Path, help="where to write (default: the system's for temporary files)"
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--json", action="store_true", help="print every round's seconds as JSON")
    args = parser.parse_args(arguments)
    for name in ("rounds", "trainings", "epochs", "megabytes"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)}: at least 1")

    told = machine()
    trainings: dict[str, Training] = {}
    saves: dict[str, Blocked] = {}
    with tempfile.TemporaryDirectory(dir=args.directory) as name:
        folder = Path(name)
        for framework in args.frameworks:
            if "blocked" in args.tables:
                saves[framework] = measure_blocked(framework, args.megabytes, args.rounds, folder)
        if "mnist" in args.tables:
            try:
                data = load(0)
            except DataError as error:
                parser.error(str(error))
            told["images"] = data.source
            for framework in args.frameworks:
                trainings[framework] = measure_training(framework, data, args.epochs, args.trainings, folder)
    if args.json:
        parts = {"trainings": trainings, "saves": saves}
        print(json.dumps({**told, **{k: {f: asdict(v) for f, v in p.items()} for k, p in parts.items()}}))
        return 0
    print(", ".join(f"{key} {value}" for key, value in told.items()), "\n")
    if trainings:
        print(training_table(trainings, markdown=args.markdown), "\n")
    if saves:
        print(blocked_table(saves, markdown=args.markdown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
