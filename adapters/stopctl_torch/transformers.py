"""Hugging Face's Trainer: `train` stops, saves and resumes it, in place of ``trainer.train()``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Unpack

import transformers
from transformers.trainer_utils import SaveStrategy, TrainOutput, has_length

import stopctl
from stopctl import Decision, Goal, Maximize, Minimize, MismatchError, ReportError, RunSettings, SettingError
from stopctl.ports import Notice
from stopctl_torch.trainer import LiveTrainer, TrainerFolder

__all__ = ["train"]

OTHER = ("_runtime", "_per_second", "_preparation_time")
"""How the names of what `evaluate` measures of itself end."""


def train(
    trainer: Any,
    directory: str | Path,
    *,
    mode: Literal["folder", "live"] = "folder",
    best: bool = False,
    **settings: Unpack[RunSettings],
) -> Any:
    """Train until a rule stops it, in place of ``trainer.train()``; the same call goes on after any end.

    A report is each evaluation of the Trainer, by the names that it gives (``eval_loss``); save rules, time
    and signals are asked at each optimizer step as well.

    Args:
        trainer: a `transformers.Trainer` with an evaluation dataset and ``eval_strategy`` "epoch" or "steps".
        directory: where the run lives, as of `stopctl.Run`.
        mode: "folder" saves the files that the Trainer writes and reads; "live" the objects that it trains,
            and no folder is written.
        best: put the best model that was saved into ``trainer.model`` at the end.
        settings: when to stop and save, what to keep; see `stopctl.RunSettings`. The goal is that of
            ``metric_for_best_model`` and ``greater_is_better``, or the least ``eval_loss``.

    Returns:
        The Trainer's ``TrainOutput``; of a run that had ended before, its steps and a training loss of NaN.

    Raises:
        SettingError: what cannot be resumed exactly, by name, before anything is trained. Opening and
            training raise what `stopctl.Run` raises.
    """
    _check(trainer, mode, settings)
    settings.setdefault("goal", _goal(trainer.args))
    state: Any = TrainerFolder(trainer) if mode == "folder" else LiveTrainer(trainer)
    with (
        stopctl.Run(directory, state=state, **settings) as run,
        _arguments(trainer.args, best and mode == "folder"),
    ):
        bridge = _Bridge(run, state, best, trainer.args)
        trainer.add_callback(bridge)
        try:
            with state.resuming() as folder:
                return trainer.train(resume_from_checkpoint=folder)
        except _Finished:
            if best:
                run.restore_best()
                with suppress(_Finished), state.resuming() as folder:
                    trainer.train(resume_from_checkpoint=folder)
            return TrainOutput(run.progress.step, float("nan"), {})
        finally:
            trainer.remove_callback(bridge)
            trainer.is_in_train = False


class _Finished(Exception):
    """Nothing is to be trained: a Trainer that is told to stop as it begins takes one step more."""


class _Bridge(transformers.TrainerCallback):  # type: ignore[misc]
    """Tells a run what the Trainer has completed, and the Trainer what the run decides."""

    def __init__(self, run: stopctl.Run, state: Any, best: bool, args: Any) -> None:
        self.run, self.state, self.best = run, state, best
        self.by_epochs = args.max_steps <= 0 and float(args.num_train_epochs).is_integer()
        self.metrics: dict[str, Any] | None = None
        self.told = -1
        self.finished = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.state.begin(given["optimizer"], given["lr_scheduler"])
        if not self.finished:
            self._check_place(state, given.get("train_dataloader"))
            self._boundary(state, control)
            self.finished = self.run.stopped is not None or state.global_step >= state.max_steps
        if self.finished:
            raise _Finished

    def _check_place(self, state: Any, loader: Any) -> None:
        """Refuse a place that is behind the run's: the Trainer finds its own from the number of steps."""
        now, epochs = self.run.progress, state.num_train_epochs
        if not self.by_epochs and (now.epoch or now.inside):
            raise MismatchError(
                f"the run counts epochs, and has completed {now.epoch}; with max_steps, or part of an epoch "
                "in num_train_epochs, it counts steps alone: give whole epochs, or another directory"
            )
        length = state.max_steps // epochs if self.by_epochs else 0
        if length and state.global_step // length < now.epoch:
            raise MismatchError(
                f"an epoch has {length} steps now, so the Trainer would go on in epoch "
                f"{state.global_step // length + 1} after step {state.global_step}, but {now.epoch} epochs "
                "are completed: give batch sizes, accumulation and data as they were, or another directory"
            )
        if (state.epoch or 0) >= 1 and state.global_step < state.max_steps and not has_length(loader):
            text = "a dataset without a length: the Trainer begins a later pass of it anew, not where it was"
            self.state.notices.append(Notice(f"{text}; give the dataset a __len__()"))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if _is_whole(state.epoch):
            self.state.draw()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.state.draw()
        self.metrics = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        ends = _is_whole(state.epoch) or state.global_step >= state.max_steps
        if not control.should_evaluate and not ends:
            self._boundary(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not control.should_evaluate and self.told != state.global_step:
            self._boundary(state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.run.stopped is None and self.told != state.global_step:
            self.metrics = {**(self.metrics or {}), **_numbers(given["metrics"])}
            if not self.state.evaluated(control):
                self._report(state, control)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.metrics is not None:  # of an evaluation in this very step
            with self.state.written():
                self._report(state, control)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.best and "train_runtime" in given["logs"]:  # the end; the Trainer loads its best model next
            self.run.restore_best()
            state.best_model_checkpoint = self.state.restored and str(self.state.restored)

    def _report(self, state: Any, control: Any) -> None:
        metrics, self.metrics = self.metrics, None
        if not metrics:
            raise ReportError(
                "the evaluation gave no number to report: give its rows labels, or compute_metrics; and see "
                "that dataloader_drop_last leaves a batch of them"
            )
        self._decided(self.run.report(**self._at(state), **metrics), state, control)

    def _boundary(self, state: Any, control: Any) -> None:
        self._decided(self.run.boundary(**self._at(state)), state, control)

    def _decided(self, decision: Decision, state: Any, control: Any) -> None:
        self.told = state.global_step
        if decision.stop is not None:
            control.should_training_stop = True

    def _at(self, state: Any) -> dict[str, Any]:
        if not self.by_epochs:
            return {"step": state.global_step, "planned": state.max_steps}
        at = {"epoch": int(state.epoch or 0), "step": state.global_step, "inside": not _is_whole(state.epoch)}
        return {**at, "planned": state.num_train_epochs}


def _is_whole(epoch: float | None) -> bool:
    return not epoch or epoch == int(epoch)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    kept = {name: value for name, value in metrics.items() if name != "epoch" and not name.endswith(OTHER)}
    return {name: value for name, value in kept.items() if isinstance(value, int | float)}


def _goal(args: Any) -> Goal:
    metric = args.metric_for_best_model or "loss"
    metric = metric if metric.startswith("eval_") else f"eval_{metric}"
    return Maximize(metric) if args.greater_is_better else Minimize(metric)


@contextmanager
def _arguments(args: Any, best: bool) -> Iterator[None]:
    """The Trainer saves when the bridge says so, rotates nothing, and loads the best model it is given."""
    given = {"save_strategy": SaveStrategy.NO, "save_total_limit": None, "load_best_model_at_end": best}
    before = {name: getattr(args, name) for name in given}
    try:
        vars(args).update(given)
        yield
    finally:
        vars(args).update(before)


def _check(trainer: Any, mode: str, settings: Mapping[str, Any]) -> None:
    """Refuse what is not exact, or never reported."""
    args = trainer.args
    callbacks = trainer.callback_handler.callbacks
    anew = "a resumed epoch would begin with other batches"
    live = mode == "live"
    refused = {
        f"mode={mode!r}: write 'folder' or 'live'": mode not in ("folder", "live"),
        "eval_strategy='no': nothing would ever be reported: write eval_strategy='epoch', or 'steps'": (
            str(getattr(args.eval_strategy, "value", args.eval_strategy)) == "no"
        ),
        f"{args.world_size} processes: one alone is saved and resumed exactly": args.world_size > 1,
        f"ignore_data_skip=True: {anew}: leave it out": args.ignore_data_skip,
        "auto_find_batch_size=True: another try would begin anew in the middle of the run: give a "
        "per_device_train_batch_size that fits": args.auto_find_batch_size,
        "EarlyStoppingCallback forgets its patience: leave it out, and write stop=Patience(3)": (
            any(isinstance(each, transformers.EarlyStoppingCallback) for each in callbacks)
        ),
        "save_only_model=True: nothing could be resumed: leave it out": not live and args.save_only_model,
        "a dict of evaluation datasets, of which nobody says which is the last: write mode='folder'": (
            live and isinstance(trainer.eval_dataset, dict)
        ),
        "FSDP or DeepSpeed, whose objects are in pieces: write mode='folder'": (
            live and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
        ),
        "start_from_run=: load those weights into the model before": "start_from_run" in settings,
    }
    for text, wrong in refused.items():
        if wrong:
            raise SettingError(f"train() got {text}")
