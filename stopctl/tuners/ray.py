"""Ray Tune: a stop rule as Tune's stopper, and a run's directory as Tune's checkpoints."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from stopctl import Controller, Decision, Goal, Minimize, ReportError, Run, StopPolicy
from stopctl.store.commit import TEMPORARY, TRASH, UPLOAD
from stopctl.store.lock import LOCK, NEW_LOCK
from stopctl.store.rundir import JOURNAL

__all__ = ["RuleStopper", "directory", "report"]


class RuleStopper(tune.Stopper):
    """Stops each trial by a rule: ``tune.RunConfig(stop=RuleStopper(Patience(5)))``.

    Every trial is judged by itself, each of its iterations once: Tune tells the last one twice, and those
    since its checkpoint again when a trial is restarted. Tune pickles it with the experiment, and the rules'
    memories with it.

    Args:
        stop: the rule; an iteration counts as an epoch, its seconds are ``time_total_s``.
        goal: what is better; its metric must be in every result.

    Raises:
        SettingError: no rule, or no goal.
    """

    def __init__(self, stop: StopPolicy, *, goal: Goal = Minimize("val_loss")) -> None:  # noqa: B008
        self._stop, self._goal = stop, goal
        self._trials: dict[str, Controller] = {}
        self._new()

    def _new(self) -> Controller:
        return Controller(goal=self._goal, stop=self._stop, save=None)

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether the trial ends.

        Raises:
            ReportError: the result lacks a metric that the goal or the rule names.
            MetricError: one that is no number.
        """
        trial = self._trials.setdefault(trial_id, self._new())
        now = trial.progress
        if trial.stopped is None and result["training_iteration"] > now.epoch:
            names = trial.metrics
            if lacking := [name for name in names if name not in result]:
                raise ReportError(
                    f"trial {trial_id} reports no {lacking[0]!r}, which a rule watches: write it in "
                    "tune.report({...}), or another goal="
                )
            trial.report(
                {name: result[name] for name in names},
                epoch=result["training_iteration"],
                seconds=max(now.seconds, float(result.get("time_total_s", 0.0))),
            )
        return trial.stopped is not None

    def stop_all(self) -> bool:
        """Whether the whole experiment ends: never."""
        return False

    def why(self, trial_id: str) -> str | None:
        """Why a trial was stopped, in words; None if it was not."""
        trial = self._trials.get(trial_id)
        return None if trial is None or trial.stopped is None else str(trial.stopped)

    def __getstate__(self) -> dict[str, Any]:
        states = {trial_id: trial.state_dict() for trial_id, trial in self._trials.items()}
        return {"stop": self._stop, "goal": self._goal, "trials": states}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._stop, self._goal, self._trials = state["stop"], state["goal"], {}
        for trial_id, saved in state["trials"].items():
            self._trials[trial_id] = trial = self._new()
            trial.load_state_dict(saved)


@contextmanager
def directory() -> Iterator[Path]:
    """A directory for the run of this trial, with the run that Tune's checkpoint holds, if there is one.

    It is a temporary one, as what counts is in Tune's storage.
    """
    with tempfile.TemporaryDirectory(prefix="stopctl-") as folder:
        checkpoint = tune.get_checkpoint()
        if checkpoint is not None:
            checkpoint.to_directory(folder)
        yield Path(folder)


def report(run: Run, **metrics: Any) -> Decision:
    """``run.report(...)``, and then ``tune.report``, with the run as its checkpoint where it was saved here.

    The save is committed before Tune hears of it, one in the background is waited for. Without a save Tune
    gets the metrics alone, and a trial that is restarted goes on from the newest one that it has.

    Raises:
        OrderError, MetricError, ReportError, SaveError, Preempted: as from `stopctl.Run.report`.
    """
    decision = run.report(**metrics)
    run._open_session().settle()
    newest, now = run.checkpoints[-1:], run.progress
    if decision.save is None or [(info.epoch, info.step) for info in newest] != [(now.epoch, now.step)]:
        tune.report(metrics)
        return decision
    with tempfile.TemporaryDirectory(prefix="stopctl-", dir=run.directory.parent) as folder:
        copy = Path(folder, "run")
        _copy(run.directory, copy)
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(copy))
    return decision


def _copy(run: Path, target: Path) -> None:
    """Copy a run without what belongs to its process; checkpoints, which nobody changes, are linked."""
    own = shutil.ignore_patterns(LOCK, NEW_LOCK, *(f"{begin}*" for begin in (TEMPORARY, TRASH, UPLOAD)))
    shutil.copytree(run, target, ignore=own, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        (shutil.copy2 if os.path.basename(source) == JOURNAL else os.link)(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
