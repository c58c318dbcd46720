"""The training script of the demo: one loop for both frameworks, stopped, saved and resumed by Run."""

from __future__ import annotations

import importlib
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from stopctl import Decision, Every, NonFinite, OnBest, Patience, SettingError
from stopctl.demo import SEED
from stopctl.runs.history import history
from stopctl.store import Reader

_NEEDED = ("numpy", "matplotlib", "pooch", "sklearn")


def installed() -> tuple[str, ...]:
    """The frameworks that are installed, in the order of TITLES; nothing is imported."""
    return tuple(name for name in TITLES if find_spec(name))


def missing() -> tuple[str, ...]:
    """The modules that the demo needs besides a framework and that are not installed."""
    return tuple(name for name in _NEEDED if not find_spec(name))


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what is written to standard error, by C++ code too; it is shown if the block fails."""
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(standard_error, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(standard_error, 2)
            os.close(standard_error)


TITLES = {"torch": "PyTorch", "tensorflow": "TensorFlow"}
"""The frameworks by the name of their module, in the order in which they are trained."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One run: a framework out of TITLES, the run's directory, the numbers, and the URL of a mirror."""

    framework: str
    directory: Path
    epochs: int = 50
    patience: int = 5
    seed: int = SEED
    mirror: str | None = None


_MODULES = {
    "torch": ("stopctl.demo.torch_loop", "stopctl_torch"),
    "tensorflow": ("stopctl.demo.tf_loop", "stopctl_tf"),
}


@dataclass(frozen=True, slots=True)
class Trained:
    """How a run ended: losses in nats, accuracy from 0 to 1, SHA-256 of the weights in hexadecimal."""

    framework: str
    directory: Path
    source: str
    began_after: int
    """The epoch this process found completed: 0 for a new run, `epoch` for a finished one."""
    epoch: int
    ending: str
    best_epoch: int
    best_val_loss: float
    test_accuracy: float
    checkpoints: tuple[str, ...]
    picture: Path
    final_sha256: str
    best_sha256: str


class Watch(Protocol):
    """Whoever shows the training; every method only looks."""

    def opened(self, source: str, epoch: int) -> None:
        """The data are loaded and the run is open, with this many epochs completed."""

    def epoch(self, epoch: int, batches: int) -> None:
        """An epoch begins; it will have this many batches."""

    def batch(self) -> None:
        """One more batch is trained."""

    def reported(self, epoch: int, train_loss: float, val_loss: float, decision: Decision) -> None:
        """An epoch was reported, and this was decided (a proposed save is committed by now)."""


def train(settings: Settings, watch: Watch) -> Trained:
    """Train until the run ends, then judge its best checkpoint on the test images and draw the curves."""
    from stopctl.demo import problem  # this loads NumPy and matplotlib, which the command line does without
    from stopctl.demo.data import load
    from stopctl.demo.plot import plot

    directory, seed = settings.directory, settings.seed
    data = load(seed)
    notes = {"model": "MLP 784-128-10", "images": data.name, "seed": seed, "batch size": problem.BATCH}
    _check_notes(directory, notes)
    images = len(data.train_y)
    loop, run_of = _import(settings.framework)

    model, optimizer = loop.build(problem.initial_weights(seed))
    with run_of(
        directory, model=model, optimizer=optimizer, notes=notes, mirror=settings.mirror, quiet=True,
        stop=Patience(settings.patience) | NonFinite(), save=Every(epochs=10) | OnBest(),
    ) as run:  # fmt: skip
        began_after = run.progress.epoch
        watch.opened(data.source, began_after)

        def on_batch() -> None:
            run.step()
            watch.batch()

        for epoch in run.epochs(settings.epochs):
            watch.epoch(epoch, math.ceil(images / problem.BATCH))
            order = problem.order(seed, epoch, images)
            train_loss = loop.train_one_epoch(model, optimizer, data.train_x, data.train_y, order, on_batch)
            val_loss, val_accuracy = loop.evaluate(model, data.valid_x, data.valid_y)
            decision = run.report(train_loss=train_loss, val_loss=val_loss, val_accuracy=val_accuracy)
            watch.reported(epoch, train_loss, val_loss, decision)

        final = problem.digest(loop.weights(model))
        best = run.restore_best()
        _, accuracy = loop.evaluate(model, data.test_x, data.test_y)
        last = run.progress.epoch
        ending = f"stopped after epoch {last}: {run.stopped}" if run.stopped else f"all {last} epochs trained"
        kept = run.checkpoints

    picture = directory / "curves.png"
    plot(
        picture,
        history(Reader(directory), "val_loss"),
        title=f"MNIST MLP in {TITLES[settings.framework]}: test accuracy {accuracy:.2%}",
        ending=ending,
        best=best.epoch,
        kept={checkpoint.epoch for checkpoint in kept},
    )
    return Trained(
        framework=settings.framework,
        directory=directory,
        source=data.source,
        began_after=began_after,
        epoch=last,
        ending=ending,
        best_epoch=best.epoch,
        best_val_loss=best.value,
        test_accuracy=accuracy,
        checkpoints=tuple(checkpoint.name for checkpoint in kept),
        picture=picture,
        final_sha256=final,
        best_sha256=problem.digest(loop.weights(model)),
    )


def _import(framework: str) -> tuple[Any, Any]:
    """The framework's loop, ready to run on one thread, and its adapter's Run."""
    loop, adapter = _MODULES[framework]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings and errors
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever else the user's Keras runs on
    with quiet():
        imported = importlib.import_module(loop)
        imported.one_thread()
        return imported, importlib.import_module(adapter).Run


def _check_notes(directory: Path, notes: dict[str, Any]) -> None:
    """Refuse to go on with a run that was begun with other settings: its losses would not be comparable."""
    if not (directory / "run.json").exists():
        return
    saved = Reader(directory).meta.get("notes", {})
    pairs = {name: (saved.get(name), now) for name, now in notes.items()}
    if other := [f"{name} {then!r}, now {now!r}" for name, (then, now) in pairs.items() if then != now]:
        raise SettingError(
            f"{directory} holds a run with other settings: {'; '.join(other)}; "
            "give the same settings to go on with it, or another --run-dir for a new run"
        )
