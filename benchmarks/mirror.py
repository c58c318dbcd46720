"""What a mirror costs a training loop: seconds of the thread that trains, and a loop with one and without."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from training_overhead import Clock
from update_overhead import machine

from stopctl import Run
from stopctl.run.uploader import Uploader

EXPLAINED = """\
A loop of run.epochs(n), whose epochs take half a second of one core and save a state of 50 MB in the
background, with and without mirror="file://..." on the same disk, which take turns. On the clock is all that
the thread which trains does for the mirror: the links of what was saved, the lines of the journal, the looks
whether something is to be told. The end of the block, which waits for the newest upload, is by itself.

Example:
  OMP_NUM_THREADS=1 python benchmarks/mirror.py --markdown
"""
CALLS = ("saved", "keep", "tell", "raise_error")


class Cost(NamedTuple):
    """Seconds: of all epochs, of the mirror in the thread that trains, and of the end of the block."""

    loop: float
    mirror: float
    end: float


@contextmanager
def on(clock: Clock) -> Iterator[None]:
    """Have all that the thread which trains does for a mirror on the clock."""
    before = [getattr(Uploader, name) for name in CALLS]
    for name, call in zip(CALLS, before, strict=True):
        setattr(Uploader, name, clock.timed(call))
    try:
        yield
    finally:
        for name, call in zip(CALLS, before, strict=True):
            setattr(Uploader, name, call)


def measure(epochs: int, seconds: float, size: int, folder: Path, mirror: bool) -> Cost:
    """One run, of a state of so many bytes."""
    url, clock = f"file://{folder}/mirror" if mirror else None, Clock()
    state = {"weights": np.zeros(size // 8)}
    with on(clock):
        run = Run(
            folder / "run", state=state, stop=None, async_save=True, mirror=url, grace_seconds=600
        ).open()
        began = time.perf_counter()
        for epoch in run.epochs(epochs):
            until = time.thread_time() + seconds
            while time.thread_time() < until:
                state["weights"][epoch] += 1.0
            run.report(val_loss=1.0 / epoch)
        ended = time.perf_counter()
        inside = clock.inside
        run.close()
    return Cost(ended - began, inside, time.perf_counter() - ended)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=EXPLAINED, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one epoch")
    parser.add_argument("--megabytes", type=int, default=50, help="of the state")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", action="store_true", help="the machine above the table, too")
    given = parser.parse_args(argv)
    costs: dict[bool, list[Cost]] = {False: [], True: []}
    for _ in range(given.rounds):
        for mirror in costs:
            with tempfile.TemporaryDirectory() as folder:
                size = given.megabytes * 10**6
                costs[mirror].append(measure(given.epochs, given.seconds, size, Path(folder), mirror))
    if given.markdown:
        print(machine(), end="\n\n")
    print("| | the loop | the mirror in its thread | of the loop | the end of the block |")
    print("|---|---:|---:|---:|---:|")
    for mirror, some in costs.items():
        cells = [
            _range([cost.loop for cost in some], "s"),
            _range([1e3 * cost.mirror for cost in some], "ms"),
            _range([100 * cost.mirror / cost.loop for cost in some], "%"),
            _range([cost.end for cost in some], "s"),
        ]
        print(f"| {'a mirror' if mirror else 'none'} | {' | '.join(cells)} |")
    return 0


def _range(values: list[float], unit: str) -> str:
    return f"{median(values):.3g} {unit} [{min(values):.3g}..{max(values):.3g}]"


if __name__ == "__main__":
    sys.exit(main())
