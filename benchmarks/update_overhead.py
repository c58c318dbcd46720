"""What one update of an early stopper costs, ours and the peers' side by side."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from curves import CurveError, read, usable
from stopctl import (
    After,
    Controller,
    EarlyStopper,
    Every,
    NonFinite,
    OnBest,
    Patience,
    Target,
)
from stopctl.demo.train import quiet
from stopctl.rules import RemainingGain

NEVER = 10**9
"""A patience that no case reaches: every value is counted."""
UPDATES = 500
"""Updates in one timing of a made-up curve."""
LENGTHS = (100, 1_000, 10_000, 100_000)
REPORTS = 64
"""Reports in one timing at a given length of the run."""

EXPLAINED = """\
Every case does what a user writes: it asks its stopper about one value after the other and reads the
verdict. The patience is never reached. What a framework hands to its callback (logs, tensors, an engine) is
made before, to the good of the peers. The cases take turns in rounds, every round begins with another one,
and each gets a new stopper. A case's figure is its best round, so that a busy machine disturbs little. Its
ratio is to the hand-written class of the same run, as absolute times do not carry over to other machines.

  flat         no update improves
  falling      every update improves
  alternating  every other update improves
  real         recorded validation curves, with --curves FILE (the format: decision_quality.py --help)

Then what one Controller.report costs after 100 to 100,000 reports of a run: it should not depend on that.

Examples:
  python benchmarks/update_overhead.py
  python benchmarks/update_overhead.py --curves curves.jsonl.gz --rounds 100
  python benchmarks/update_overhead.py --peers --json            # without the peers
"""

Values = Sequence[float]
Run = Callable[[], object]
Make = Callable[[Values], Run]
"""A fresh stopper, and what runs it through the values."""


def hand_written_loop(values: Values) -> Run:
    min_delta, patience = 0.0, NEVER

    def run() -> None:
        best, wait = math.inf, 0
        for value in values:
            if value < best - min_delta:
                best, wait = value, 0
            else:
                wait += 1
                if wait >= patience:
                    break

    return run


class HandWritten:
    """The class that one finds in tutorials."""

    def __init__(self, patience: int = 5, min_delta: float = 0.0) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.best = math.inf
        self.wait = 0

    def step(self, value: float) -> bool:
        if value < self.best - self.min_delta:
            self.best = value
            self.wait = 0
        else:
            self.wait += 1
        return self.wait >= self.patience


def hand_written_class(values: Values) -> Run:
    stopper = HandWritten(patience=NEVER)

    def run() -> None:
        for value in values:
            if stopper.step(value):
                break

    return run


def early_stopper(values: Values) -> Run:
    stopper = EarlyStopper(patience=NEVER)

    def run() -> None:
        for value in values:
            if stopper.update(value).stop:
                break

    return run


def four_stop_rules() -> Controller:
    return Controller(stop=Patience(NEVER) | NonFinite() | Target(-1e9) | After(hours=1e6), save=None)


def two_and_two() -> Controller:
    return Controller(stop=Patience(NEVER) | NonFinite(), save=Every(epochs=10) | OnBest())


def watching(values: Values) -> Run:
    controller = four_stop_rules()

    def run() -> None:
        for epoch, value in enumerate(values, start=1):
            if controller.report({"val_loss": value}, epoch=epoch).stop:
                break

    return run


def saving(values: Values) -> Run:
    controller = two_and_two()

    def run() -> None:
        for epoch, value in enumerate(values, start=1):
            decision = controller.report({"val_loss": value}, epoch=epoch)
            if decision.save:
                controller.saved(decision.save)
            if decision.stop:
                break

    return run


def keras() -> Make:
    from keras.callbacks import EarlyStopping

    def make(values: Values) -> Run:
        model = SimpleNamespace(stop_training=False)
        callback = EarlyStopping(monitor="val_loss", mode="min", patience=NEVER)
        callback.set_model(model)
        callback.on_train_begin()
        logs = [{"val_loss": value} for value in values]

        def run() -> None:
            for epoch, given in enumerate(logs):
                callback.on_epoch_end(epoch, given)
                if model.stop_training:
                    break

        return run

    return make


def lightning() -> Make:
    import torch
    from lightning.pytorch.callbacks import EarlyStopping

    def make(values: Values) -> Run:
        callback = EarlyStopping(monitor="val_loss", mode="min", patience=NEVER)
        tensors = [torch.tensor(value) for value in values]

        def run() -> None:
            for given in tensors:
                if callback._evaluate_stopping_criteria(given)[0]:
                    break

        return run

    return make


def ignite() -> Make:
    from ignite.engine import Engine
    from ignite.handlers import EarlyStopping

    def make(values: Values) -> Run:
        trainer, evaluator = Engine(lambda *_: None), SimpleNamespace(score=0.0)
        handler = EarlyStopping(NEVER, score_function=lambda engine: engine.score, trainer=trainer)
        handler.logger.setLevel(logging.WARNING)
        scores = [-value for value in values]

        def run() -> None:
            for evaluator.score in scores:
                handler(evaluator)
                if trainer.should_terminate:
                    break

        return run

    return make


def flax() -> Make:
    from flax.training.early_stopping import EarlyStopping

    def make(values: Values) -> Run:
        start = EarlyStopping(patience=NEVER)

        def run() -> None:
            early = start
            for value in values:
                early = early.update(value)
                if early.should_stop:
                    break

        return run

    return make


LOOP, CLASS = "hand-written loop", "hand-written class"
OURS: dict[str, Make] = {
    LOOP: hand_written_loop,
    CLASS: hand_written_class,
    "EarlyStopper.update": early_stopper,
    "Controller.report, four stop rules": watching,
    "Controller.report and saved, two stop and two save rules": saving,
}
PEERS = {
    "keras": ("keras", "EarlyStopping.on_epoch_end", keras),
    "lightning": ("lightning", "EarlyStopping, its evaluation", lightning),
    "ignite": ("pytorch-ignite", "EarlyStopping, the handler", ignite),
    "flax": ("flax", "EarlyStopping.update", flax),
}


def cases(peers: Sequence[str]) -> tuple[dict[str, Make], list[str]]:
    """Every case that can run here, and why others cannot."""
    found, skipped = dict(OURS), []
    for name in peers:
        package, what, load = PEERS[name]
        try:
            told = f"{name} {version(package)}: {what}"
            with quiet():
                found[told] = load()
        except PackageNotFoundError:
            skipped.append(f"{name} is not installed")
        except Exception as error:  # a framework may fail in any way when it is imported
            skipped.append(f"{name} cannot be imported: {type(error).__name__}: {error}")
    return found, skipped


def made_up() -> dict[str, list[Values]]:
    """The made-up curves by kind."""
    falling = [1.0 / (1 + i) for i in range(UPDATES)]
    return {
        "flat": [[0.5] * UPDATES],
        "falling": [falling],
        "alternating": [[2.0 if i % 2 else value for i, value in enumerate(falling)]],
    }


def recorded(path: Path, most: int = 48) -> list[Values]:
    """At most so many curves of a file, evenly spread over it, signed so that smaller is better."""
    curves, _ = usable(read(path))
    chosen = curves[:: max(1, -(-len(curves) // most))]
    return [[curve.goal.sign * value for value in curve.values] for curve in chosen]


@dataclass(frozen=True, slots=True)
class Timing:
    """Nanoseconds an update: the best round, and the one in the middle."""

    best: float
    middle: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Timing:
        return cls(min(rounds), median(rounds))


def timed(runs: Sequence[Run]) -> int:
    """Nanoseconds that all runs take together."""
    start = time.perf_counter_ns()
    for run in runs:
        run()
    return time.perf_counter_ns() - start


def measure(makers: dict[str, Make], curves: Sequence[Values], rounds: int) -> dict[str, Timing]:
    """Each case on the curves, in rounds that start with another case each time."""
    names, updates = list(makers), sum(map(len, curves))
    spent: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        gc.collect()
        for name in names[i % len(names) :] + names[: i % len(names)]:
            runs = [makers[name](values) for values in curves]
            spent[name].append(timed(runs) / updates)
    return {name: Timing.of(each) for name, each in spent.items()}


CONTROLLERS: dict[str, Callable[[], Controller]] = {
    "four stop rules": four_stop_rules,
    "two stop and two save rules": two_and_two,
    "four stop rules, RemainingGain among them": lambda: Controller(
        stop=Patience(NEVER) | NonFinite() | Target(-1e9) | RemainingGain(1e-9), save=None
    ),
}


def report(controller: Controller, first: int, last: int, planned: int) -> None:
    """Reports of the alternating curve; answers every save."""
    for epoch in range(first, last + 1):
        value = 2.0 if epoch % 2 else 1.0 / epoch
        decision = controller.report({"val_loss": value}, epoch=epoch, planned=planned)
        if decision.save:
            controller.saved(decision.save)


def measure_lengths(lengths: Sequence[int], rounds: int) -> dict[str, dict[int, Timing]]:
    """What a report costs after so many, half of the planned length; every round goes on from there."""
    states = {}
    for name, make in CONTROLLERS.items():
        for length in lengths:
            controller = make()
            report(controller, 1, length, 2 * length)
            states[name, length] = controller.state_dict()
    order = list(states)
    spent: dict[tuple[str, int], list[float]] = {key: [] for key in order}
    for i in range(rounds):
        gc.collect()
        for name, length in order[i % len(order) :] + order[: i % len(order)]:
            controller = CONTROLLERS[name]()
            controller.load_state_dict(states[name, length])
            run = partial(report, controller, length + 1, length + REPORTS, 2 * length)
            spent[name, length].append(timed([run]) / REPORTS)
    return {name: {length: Timing.of(spent[name, length]) for length in lengths} for name in CONTROLLERS}


Measured = dict[str, dict[str, Timing]]
"""Timings by kind of curve and case."""


def update_table(told: Measured, *, markdown: bool) -> str:
    """Nanoseconds and the ratio to the hand-written class."""
    kinds = list(told)
    rows = [["one update", *kinds]]
    for name in told[kinds[0]]:
        rows.append([name])
        for kind in kinds:
            best = told[kind][name].best
            rows[-1].append(f"{best:.0f} ns  {best / told[kind][CLASS].best:.1f}x")
    return aligned(rows, markdown=markdown)


def length_table(told: dict[str, dict[int, Timing]], *, markdown: bool) -> str:
    """Nanoseconds a report, by the length of the run."""
    lengths = list(next(iter(told.values())))
    rows = [["Controller.report after", *(f"{length:,} reports" for length in lengths)]]
    for name, timings in told.items():
        rows.append([name, *(f"{timings[length].best:.0f} ns" for length in lengths)])
    return aligned(rows, markdown=markdown)


def aligned(rows: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """Rows of text under each other, or as Markdown."""
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """On what the figures were taken."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or it does not tell
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": model,
        "cores": os.cpu_count(),
        "load": load,
        "python": platform.python_version(),
        "system": platform.system(),
        "stopctl": version("stopctl"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="update_overhead.py",
        description=__doc__,
        epilog=EXPLAINED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--curves", type=Path, metavar="FILE", help="recorded curves: .jsonl or .jsonl.gz")
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="rounds (default: 30)")
    parser.add_argument(
        "--peers", nargs="*", choices=list(PEERS), default=list(PEERS), help="which (default: all installed)"
    )
    parser.add_argument(
        "--lengths", nargs="*", type=int, default=list(LENGTHS), metavar="N", help="of the long runs"
    )
    parser.add_argument("--markdown", action="store_true", help="the tables as Markdown")
    parser.add_argument("--json", action="store_true", help="all figures as JSON, nothing else")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: at least one, better 30")
    if any(length < REPORTS for length in given.lengths):
        parser.error(f"--lengths: at least {REPORTS}, so that the planned end is not reached")
    curves = made_up()
    if given.curves:
        try:
            curves["real"] = recorded(given.curves)
        except CurveError as error:
            parser.error(str(error))
        if not curves["real"]:
            parser.error(f"{given.curves}: no curve with 3 finite values or more")
    makers, skipped = cases(given.peers)
    gc.disable()  # a collection would be charged to whoever comes next
    gc.freeze()
    told = {kind: measure(makers, part, given.rounds) for kind, part in curves.items()}
    lengths = measure_lengths(given.lengths, given.rounds) if given.lengths else {}
    gc.enable()
    where = machine()
    if "keras" in sys.modules:
        where["keras backend"] = sys.modules["keras"].backend.backend()
    if given.json:
        data = {"machine": where, "rounds": given.rounds, "skipped": skipped}
        updates = {k: {name: asdict(t) for name, t in v.items()} for k, v in told.items()}
        reports = {k: {str(n): asdict(t) for n, t in v.items()} for k, v in lengths.items()}
        print(json.dumps({**data, "updates": updates, "reports": reports}, indent=1))
        return 0
    print(update_table(told, markdown=given.markdown))
    if lengths:
        print("\n" + length_table(lengths, markdown=given.markdown))
    notes = [", ".join(f"{name} {value}" for name, value in where.items()), f"best of {given.rounds} rounds"]
    if "real" in curves:
        notes.append(f"real: {len(curves['real'])} curves, {sum(map(len, curves['real']))} updates")
    print("\n" + "\n".join(f"- {note}" if given.markdown else note for note in [*notes, *skipped]))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets on standard error
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    sys.exit(main())
