"""What the watch costs a step loop of PyTorch: time inside its hooks, marks and looks around, by step."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from training_overhead import Clock
from update_overhead import hand_written_class, machine

from stopctl_torch import Run
from stopctl_torch.marks import Marks
from stopctl_torch.watch import Watch

EXPLAINED = """\
A loop of run.steps(n) whose steps take 1 ms of one core, with a report after each, a model of 600 tensors and
an optimizer that steps. On the clock is all that stopctl does to see what is missing or moves too late: the
hook after every optimizer step, the values that a report remembers and the comparison at the end of the pass,
the look around there; and, by itself, the one search among all objects after the first pass. Seconds are
those of this thread, so that other processes do not count, less what the clock itself takes in the same loop
and what every run, watched or not, asks at a report (Marks.version). Beside it is what one update of a
hand-written stopper takes in the same process, as in update_overhead.py: how fast the machine is just then.

Example:
  OMP_NUM_THREADS=1 python benchmarks/watch.py --markdown
"""


class Cost(NamedTuple):
    """Seconds: of the steps themselves, of the watch in them, and of its one search."""

    work: float
    watch: float
    search: float


@contextmanager
def clocks(watch: Clock, search: Clock) -> Iterator[None]:
    """Have all that the watch does on the clock."""
    timed: list[tuple[Any, str, Clock]] = [
        *((Watch, name, watch) for name in ("stepped", "passed")),
        *((Marks, name, watch) for name in ("mark", "moved")),
        (Watch, "_scan", search),
    ]
    before = [getattr(kind, name) for kind, name, _ in timed]
    for (kind, name, clock), call in zip(timed, before, strict=True):
        setattr(kind, name, clock.timed(call))
    try:
        yield
    finally:
        for (kind, name, _), call in zip(timed, before, strict=True):
            setattr(kind, name, call)


def measure(steps: int, seconds: float, tensors: int, directory: Path) -> Cost:
    """One run."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(tensors // 2)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch, search, asked, nothing = (Clock(time.thread_time) for _ in range(4))
    before, work = Marks({}, {"optimizer": optimizer}, {}, {}), 0.0
    clock, version = nothing.timed(lambda: None), asked.timed(before.version)
    with clocks(watch, search), Run(directory, model=model, optimizer=optimizer, stop=None, save=None) as run:
        for _ in run.steps(steps):
            began = time.thread_time()
            optimizer.step()
            while time.thread_time() - began < seconds:
                pass
            work += time.thread_time() - began
            clock()
            version()
            run.report(val_loss=1.0)
    before.close()
    each = nothing.inside / nothing.calls
    others = each * watch.calls + asked.inside - each * asked.calls
    return Cost(work, watch.inside - search.inside - others, search.inside)


def update() -> float:
    """Nanoseconds of one update of a hand-written stopper, on the clock of this thread."""
    losses = [0.5] * 10_000
    run = hand_written_class(losses)
    began = time.thread_time_ns()
    run()
    return (time.thread_time_ns() - began) / len(losses)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=EXPLAINED, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--milliseconds", type=float, default=1.0, help="of one step")
    parser.add_argument("--tensors", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", action="store_true", help="the machine above the table, too")
    given = parser.parse_args(argv)
    costs, updates = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(given.rounds):
            costs.append(measure(given.steps, given.milliseconds / 1e3, given.tensors, Path(folder) / str(i)))
            updates.append(update())
    if given.markdown:
        print(machine(), end="\n\n")
    each = [1e6 * cost.watch / given.steps for cost in costs]
    share = [100 * cost.watch / cost.work for cost in costs]
    search = [1e3 * cost.search for cost in costs]
    print("| tensors | one step | the watch in it | of the step | one search | hand-written update |")
    print("|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {given.tensors} | {given.milliseconds:g} ms | {_range(each, 'µs')} | {_range(share, '%')} | "
        f"{_range(search, 'ms')} | {_range(updates, 'ns')} |"
    )
    return 0


def _range(values: list[float], unit: str) -> str:
    return f"{median(values):.3g} {unit} [{min(values):.3g}..{max(values):.3g}]"


if __name__ == "__main__":
    sys.exit(main())
