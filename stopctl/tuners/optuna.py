"""Optuna: each trial is a run; one that was killed and is retried goes on where it was."""

from __future__ import annotations

import logging
from itertools import count
from pathlib import Path
from typing import Any

import optuna

from stopctl import Progress, Run, SettingError, StopPolicy
from stopctl.runs.history import reports, value_of
from stopctl.store import Reader
from stopctl.store.rundir import local

__all__ = ["Pruned", "directory", "result"]

log = logging.getLogger("stopctl")

DIRECTORY = "stopctl.directory"
"""The user attribute of a trial that names its run's directory; Optuna's callback for retries copies it."""


def directory(trial: optuna.trial.BaseTrial, folder: str | Path) -> Path:
    """The directory of this trial's run, below ``folder``; call it after the trial's suggestions.

    A new trial gets one of its own, ``trial-0007``, also where an earlier one had the same parameters; it is
    made and stored as the trial's user attribute ``stopctl.directory``. Optuna's
    ``RetryHeartbeatStaleTrialCallback`` copies that to the trial that retries a dead one, which so goes on
    with the dead one's run.

    Raises:
        SettingError: the trial has the directory of another one, but other parameters; ``folder`` is a URL.
    """
    place = local(folder)
    known = trial.user_attrs.get(DIRECTORY)
    if known is None:
        path = _new(place, f"trial-{trial.number:04d}")
    else:
        path = place / Path(str(known)).name
        _refuse_other_parameters(trial, str(known))
        if not path.exists():
            log.warning(
                "%s: trial %d is to go on with this run, but it is not there: the trial begins anew; give "
                "the folder that the dead trial had (%s)",
                path,
                trial.number,
                known,
            )
    trial.set_user_attr(DIRECTORY, str(path))
    return path


def _new(folder: Path, name: str) -> Path:
    """Make the first directory of that name, or with a number behind it, that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = folder / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        if number > 1:
            log.info("%s: %s is another study's, so this trial begins beside it", path, name)
        return path
    raise AssertionError


def _refuse_other_parameters(trial: optuna.trial.BaseTrial, known: str) -> None:
    sharing = (other for other in _trials(trial) if other.user_attrs.get(DIRECTORY) == known)
    first = next(sharing, trial)
    for name in first.params.keys() & trial.params.keys():
        if first.params[name] != trial.params[name]:
            raise SettingError(
                f"trial {trial.number} has the directory of trial {first.number}, {known}, but "
                f"{name}={trial.params[name]!r} where that has {first.params[name]!r}: give the trial its "
                f"parameters, or no user attribute {DIRECTORY!r}"
            )


def _trials(trial: optuna.trial.BaseTrial) -> list[optuna.trial.FrozenTrial]:
    """All trials of its study, by number; none where it has none, as a FixedTrial."""
    return trial.study.get_trials(deepcopy=False) if isinstance(trial, optuna.Trial) else []


class Pruned(StopPolicy):
    """Met when the study says so: tells the trial what counts for the goal, and asks its pruner.

    Report n of the run is the trial's step n - 1. The steps that a retried trial lacks, as its run reported
    them in an earlier process, are told before the next one, so that pruners see a whole curve. Unlike other
    rules it asks something outside: join it by ``|`` in a run of one process, not of several ranks.

    Args:
        trial: as the objective got it.

    Raises:
        SettingError: no trial; when the run is made, a study of several objectives, or whose direction is
            not that of the run's goal.
    """

    def __init__(self, trial: optuna.trial.BaseTrial) -> None:
        if not isinstance(trial, optuna.trial.BaseTrial):
            raise SettingError(f"Pruned({trial!r}): give the trial that the objective got")
        self._trial = trial
        self._told = False

    def start(self, now: Progress) -> int:
        """The memory is whether the study has pruned the trial."""
        if isinstance(self._trial, optuna.Trial):
            directions = self._trial.study.directions
            if len(directions) > 1:
                raise SettingError(
                    f"Pruned() in a study of {len(directions)} objectives, which Optuna does not prune: "
                    "leave it out"
                )
            ours = "MINIMIZE" if now.goal.sign > 0 else "MAXIMIZE"
            if directions[0].name != ours:
                raise SettingError(
                    f"the study's direction is {directions[0].name.lower()}, the run's goal {now.goal!r}: "
                    f"write create_study(direction={ours.lower()!r}), or another goal"
                )
        return 0

    def update(self, memory: int, x: float, now: Progress) -> int:
        """Tell the study, and ask it."""
        if not self._told:
            _tell_earlier(self._trial, now, now.reports - 1)
            self._told = True
        self._trial.report(self._sign(now) * x, now.reports - 1)
        return int(self._trial.should_prune())

    def met(self, memory: int, x: float, now: Progress) -> bool:
        """Met iff the study has said so."""
        return bool(memory)

    def sentence(self, numbers: Any, /) -> str:
        """Why it is met."""
        return "pruned by the study"

    def standing(self, numbers: Any, /) -> str:
        """How close it is to being met."""
        return "the study decides"


def _tell_earlier(trial: optuna.trial.BaseTrial, now: Progress, number: int) -> None:
    """Tell the trial of the first ``number`` reports of its run, as far as it does not know of them."""
    trials, known = _trials(trial), trial.user_attrs.get(DIRECTORY)
    if not (trials and known and number):
        return
    there = trials[trial.number].intermediate_values
    lines = reports(Reader(Path(known)))[:number]
    for step, line in enumerate(lines, number - len(lines)):
        value = value_of(line, now.goal)
        if step not in there and value is not None:
            trial.report(value, step)


def result(trial: optuna.trial.BaseTrial, run: Run) -> float:
    """What the objective returns when the loop is over: the best value that the run has reported.

    Raises:
        optuna.TrialPruned: the study had the run stopped, or no finite value was reported.
    """
    now = run.progress
    if run.resumed is not None:
        _tell_earlier(trial, now, now.reports)
    if run.stopped is not None and any(cause.rule == "Pruned()" for cause in run.stopped.causes):
        raise optuna.TrialPruned(str(run.stopped))
    if now.best is None:
        raise optuna.TrialPruned(f"no finite value of {now.goal.metric} was reported")
    return now.best
