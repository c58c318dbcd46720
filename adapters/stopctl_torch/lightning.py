"""fit: Lightning's Trainer.fit as a run, which a Callback decides and a CheckpointIO saves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Unpack

from stopctl import Decision, Every, Minimize, Run, RunSettings, SettingError
from stopctl.ports import has_state
from stopctl_torch.lightning_state import FitIO, FitState, package_of
from stopctl_torch.resumable import ResumableLoader

__all__ = ["Control", "control_of", "fit"]

log = logging.getLogger("stopctl")

RESERVED = ("epoch", "step", "planned", "inside")


def fit(
    trainer: Any,
    module: Any,
    *loaders: Any,
    directory: str | Path,
    datamodule: Any = None,
    **settings: Unpack[RunSettings],
) -> Run:
    """Write it in place of ``trainer.fit(module, *loaders)``: the fit stops, saves and resumes as a run.

    Args:
        trainer: a Trainer of ``lightning.pytorch`` or ``pytorch_lightning``, on one device.
        module: the LightningModule.
        loaders: for training and validation, or a LightningDataModule, as ``trainer.fit`` takes them.
        directory: where the run lives; made if need be.
        datamodule: as ``trainer.fit`` takes it.
        settings: when to stop and save, what to keep, and the rest; see `stopctl.RunSettings`. Metrics are
            those that the module logs.

    Returns:
        The run, closed: ``run.stopped`` and ``run.progress`` tell how it ended.

    Raises:
        SettingError: what would not be exact, and what to write instead.
        MismatchError: the directory holds a run of another module or optimizer, or of no ``fit``.
        Preempted, SaveError, MetricError, ReportError: as from ``run.report()``, out of ``trainer.fit``.
    """
    with control_of(trainer, directory, **settings) as control:
        trainer.fit(module, *loaders, datamodule=datamodule, ckpt_path=control.ckpt_path)
    return control.run


@contextmanager
def control_of(trainer: Any, directory: str | Path, **settings: Unpack[RunSettings]) -> Iterator[Control]:
    """Open a run around a ``trainer.fit`` of your own: ``trainer.fit(..., ckpt_path=control.ckpt_path)``.

    Raises:
        SettingError, MismatchError: as `fit`.
    """
    _check_trainer(trainer)
    state = FitState(trainer)
    with Run(directory, state=state, **settings) as run:
        state.path = str(run.directory)
        control = Control(run, state, settings)
        callback, strategy = _callback(trainer, control), trainer.strategy
        own = strategy.checkpoint_io
        trainer.callbacks.append(callback)
        strategy.checkpoint_io, strategy.process_dataloader = FitIO(state, own), state.take
        try:
            yield control
        finally:
            trainer.callbacks.remove(callback)
            strategy.checkpoint_io = own
            del strategy.process_dataloader


class Control:
    """What the hooks of a Trainer ask of a run.

    Attributes:
        run: the open run.
        ckpt_path: for ``trainer.fit(ckpt_path=...)``; None where the run begins.
    """

    def __init__(self, run: Run, state: FitState, settings: RunSettings) -> None:
        self.run = run
        self.ckpt_path = None if run.resumed is None else state.path
        self._state = state
        self._save = settings.get("save")
        self._metric = settings.get("goal", Minimize("val_loss")).metric
        self._inside = False  # a save between two batches is exact
        self._validated = False  # since the last report
        self._before: set[str] = set()
        self._of_validation: set[str] = set()

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Say how the run goes on: all that will train is made, and Lightning restores it next."""
        self._state.check()
        now = self.run.progress
        self._obey(trainer, self.run.boundary(epoch=now.epoch, step=now.step, planned=_planned(trainer)))

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Put back what setting up has moved, and refuse what would not be exact."""
        why = _why_not_inside(trainer, module, self._state.loaders)
        self._inside = why is None
        if why is not None and _asks_inside(self._save):
            raise SettingError(f"save={self._save!r} inside an epoch: {why}; or write save=Every(epochs=1)")
        if any(type(each).__name__ == "EarlyStopping" for each in trainer.callbacks):
            log.warning(
                "EarlyStopping ends this fit, but not the run, which trains on when it is started again: "
                "write stop=Patience(...) instead"
            )
        self._state.begin()
        trainer.should_stop |= self.run.stopped is not None

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """Remember which metrics there are."""
        self._before = set(trainer.callback_metrics)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Find those of validation, which stand until the next one, and end its pass over the data here."""
        self._state.leave("val")  # Trainer(num_sanity_val_steps=2), or limit_val_batches=...
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._validated = True
            self._of_validation |= trainer.callback_metrics.keys() - self._before

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        """Ask the run between two optimizer steps of an epoch."""
        whole = (index + 1) % trainer.accumulate_grad_batches == 0
        if self._inside and whole and not trainer.is_last_batch and self.run.stopped is None:
            now = {"epoch": trainer.current_epoch, "step": trainer.global_step}
            self._obey(trainer, self.run.boundary(**now, planned=_planned(trainer), inside=True))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Report; where the epoch has no metric of the goal, ask the run."""
        if self.run.stopped is not None:
            return
        if not trainer.is_last_batch:
            log.warning("ended inside an epoch: the next start trains again what came after the newest save")
            return
        self._state.leave("train")  # Trainer(limit_train_batches=...)
        stale = set() if self._validated else self._of_validation
        told: dict[str, Any] = {
            k: float(v) for k, v in trainer.callback_metrics.items() if k not in {*stale, *RESERVED}
        }
        judged = self._validated or not trainer.enable_validation or self._metric in told
        now = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "planned": _planned(trainer)}
        self._validated = False
        self._obey(trainer, self.run.report(**told, **now) if judged else self.run.boundary(**now))

    def _obey(self, trainer: Any, decision: Decision) -> None:
        trainer.should_stop |= decision.stop is not None


def _planned(trainer: Any) -> int | None:
    return trainer.max_epochs if trainer.max_epochs not in (None, -1) else None


def _callback(trainer: Any, control: Control) -> Any:
    """A Callback of the trainer's own package, of the kind that comes last at the end of an epoch."""
    package = package_of(trainer)
    base = import_module("lightning.pytorch.callbacks" if package == "lightning" else f"{package}.callbacks")
    hooks = {name: getattr(control, name) for name in dir(control) if name.startswith("on_")}
    return type("StopctlCallback", (base.Checkpoint,), {k: staticmethod(v) for k, v in hooks.items()})()


def _check_trainer(trainer: Any) -> None:
    """Refuse what would not be exact, or would train on after a stop."""
    strategy = (package_of(trainer), type(trainer.strategy).__name__)[1]
    refused = {
        "fast_dev_run; call trainer.fit(...) for that": trainer.fast_dev_run,
        f"a Trainer with {strategy}; write Trainer(devices=1)": strategy != "SingleDeviceStrategy",
        "min_epochs or min_steps, which train on after a stop; write stop=Patience(3) & After(epochs=5)": (
            trainer.min_epochs or trainer.min_steps
        ),
        "max_steps; write max_epochs=..., stop=After(steps=...)": trainer.max_steps != -1,
        "reload_dataloaders_every_n_epochs, whose loaders' position is not found again; leave it out": (
            trainer.reload_dataloaders_every_n_epochs
        ),
        "validation inside an epoch, which a resume would skip; leave val_check_interval out": (
            trainer.val_check_interval != 1.0 or trainer.check_val_every_n_epoch is None
        ),
        "a Trainer that has trained already; make a new one for each fit": trainer.global_step,
    }
    for text, is_so in refused.items():
        if is_so:
            raise SettingError(f"stopctl_torch.lightning does not serve {text}")


def _why_not_inside(trainer: Any, module: Any, loaders: dict[str, Any]) -> str | None:
    """Why a save between two batches would not be exact, and what to write."""
    train = [loader for name, loader in loaders.items() if name.startswith("train")]
    if len(train) != 1:
        return f"{len(train)} training loaders; give one"
    if not has_state(train[0]):
        return f"a {type(train[0]).__name__} does not tell its position; give a DataLoader"
    if isinstance(train[0], ResumableLoader) and not train[0].sized:
        return "Lightning reads ahead in a DataLoader without a length; give its dataset a __len__()"
    if any(type(each).__name__ == "StochasticWeightAveraging" for each in trainer.callbacks):
        return "StochasticWeightAveraging makes its schedule as an epoch begins; leave it out"
    plateau = [each for each in trainer.lr_scheduler_configs if each.reduce_on_plateau]
    if any(each.interval == "step" for each in plateau):
        return "ReduceLROnPlateau with interval='step' steps after the save; write interval='epoch'"
    hook = next(each for each in type(module).__mro__ if "on_train_batch_end" in vars(each))
    if hook.__module__.partition(".")[0] not in ("lightning", "pytorch_lightning"):
        return f"{hook.__name__}.on_train_batch_end() comes after the save; move it to optimizer_step()"
    return None


def _asks_inside(rule: Any) -> bool:
    """Whether a save rule is meant to be met between two ends of epochs."""
    parts = getattr(rule, "parts", ())
    own = isinstance(rule, Every) and rule.epochs is None and rule.overhead is None
    return own or any(map(_asks_inside, parts))
