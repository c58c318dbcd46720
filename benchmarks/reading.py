"""What reading runs costs: `show` and `ls` of one run of many reports, and `ls` of many runs."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from os import times
from pathlib import Path

from update_overhead import machine

from stopctl import Every, Minimize, Patience, Run
from stopctl.store.index import INDEX

EXPLAINED = """\
Seconds of the processor that commands take, the smallest of a few rounds, each in a process of its own: of
one run of many reports with its index, of the same run without (as one that an older version wrote), and of
many small runs. Ratios are to a command that reads nothing (--version).

Example:
  python benchmarks/reading.py --markdown
"""


def long_run(path: Path, reports: int) -> None:
    """A run of so many reports of three metrics, saved a hundred times."""
    rules = {
        "goal": Minimize("val_loss"),
        "stop": Patience(reports),
        "save": Every(epochs=max(10, reports // 100)),
    }
    with Run(path, state={}, quiet=True, durability="process", **rules) as run:  # type: ignore[arg-type]
        for epoch in run.epochs(reports):
            noise = (epoch * 7919 % 1000) / 1000
            run.report(train_loss=noise, val_loss=1 / epoch + noise / 10, accuracy=1 - noise / 2)


def many_runs(folder: Path, count: int) -> None:
    """Copies of a run of 50 reports, each with notes of its own."""
    long_run(folder / "run-0000", 50)
    meta = json.loads((folder / "run-0000" / "run.json").read_text())
    for i in range(1, count):
        path = folder / f"run-{i:04}"
        shutil.copytree(folder / "run-0000", path)
        (path / "run.json").write_text(json.dumps({**meta, "notes": {"lr": i % 7 / 10, "seed": i}}))


def cpu(command: list[str], rounds: int) -> float:
    """Seconds of the processor that a command takes."""
    taken = []
    for _ in range(rounds):
        before = times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = times()
        taken.append(sum(after[2:4]) - sum(before[2:4]))
    return min(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=EXPLAINED, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reports", type=int, default=100_000, help="of the long run")
    parser.add_argument("--runs", type=int, default=1000, help="small ones")
    parser.add_argument("--rounds", type=int, default=5, help="of each command")
    parser.add_argument("--markdown", action="store_true", help="print a table for the documentation")
    options = parser.parse_args()
    base = [sys.executable, "-m", "stopctl"]
    with tempfile.TemporaryDirectory() as name:
        long, many = Path(name, "long"), Path(name, "many")
        began = time.process_time()
        long_run(long / "run", options.reports)
        written = time.process_time() - began
        many.mkdir()
        many_runs(many, options.runs)
        start = cpu([*base, "--version"], options.rounds)
        asked: dict[str, Callable[[], list[str]]] = {
            "show": lambda: ["show", str(long / "run")],
            "ls": lambda: ["ls", str(long)],
            "diff": lambda: ["diff", str(long / "run"), str(long / "run")],
        }
        rows = [
            (f"`{name}`, {options.reports:,} reports", cpu([*base, *of()], options.rounds))
            for name, of in asked.items()
        ]
        (long / "run" / INDEX).unlink(missing_ok=True)
        rows += [
            (f"`{name}`, the same without {INDEX}", cpu([*base, *of()], options.rounds))
            for name, of in asked.items()
        ]
        rows.append(
            (
                f"`ls --top 10`, {options.runs:,} runs",
                cpu([*base, "ls", str(many), "--top", "10"], options.rounds),
            )
        )
    print(machine())
    print(
        f"a report of the long run, written: {written / options.reports * 1e6:.1f} us; "
        f"a command by itself: {start:.2f} s"
    )
    line = "| {} | {} | {} |" if options.markdown else "{:40} {:>8} {:>10}"
    print(line.format("command", "CPU, s", "by start"))
    if options.markdown:
        print("|---|---:|---:|")
    for name, seconds in rows:
        print(line.format(name, f"{seconds:.2f}", f"{seconds / start:.1f}"))


if __name__ == "__main__":
    main()
