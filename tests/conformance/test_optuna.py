"""Optuna's trials as runs: killed and retried they go on; pruned, finished, foreign ones are told apart."""

from __future__ import annotations

import json
import logging
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import pytest

from conformance.program import assert_same_bits, play, programs
from stopctl import LockedError, Maximize, Minimize, NonFinite, Patience, ReportError, Run, SettingError

optuna = pytest.importorskip("optuna")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from stopctl.tuners.optuna import Pruned, directory, result

optuna.logging.set_verbosity(optuna.logging.ERROR)

VALUES = [0.5, 0.4, 0.3, 0.25, 0.35, 0.2]


def starts(run: Path) -> list[int]:
    """The epochs after which each opening went on."""
    lines = map(json.loads, (run / "journal.jsonl").read_text().splitlines())
    return [line["epoch"] for line in lines if line["event"] in ("start", "resume")]


def stop_hearts(database: Path) -> None:
    """As if the process had been dead for years, however soon it was killed."""
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM trial_heartbeats")
        connection.execute(
            "INSERT INTO trial_heartbeats (trial_id, heartbeat) "
            "SELECT trial_id, '2000-01-01 00:00:00' FROM trials WHERE state = 'RUNNING'"
        )
    connection.close()


def test_the_program_of_the_page_killed_twice_ends_with_the_same_bits(tmp_path: Path) -> None:
    (program,) = programs("tuners")[:1]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for folder in (straight, killed):
        folder.mkdir()
        begun = optuna.create_study(study_name="lr", storage=f"sqlite:///{folder}/study.db")
        begun.enqueue_trial({"lr": 0.01})
    play(straight, program)
    play(killed, program, "3")
    stop_hearts(killed / "study.db")
    play(killed, program, "save-3")
    stop_hearts(killed / "study.db")
    told = play(killed, program)
    assert "runs/lr/trial-0000: resumed from epoch-0005-" in told
    first = Path("runs", "lr", "trial-0000")
    assert starts(killed / first) == [0, 3, 5]
    assert_same_bits(straight / first, killed / first)
    there = optuna.load_study(study_name="lr", storage=f"sqlite:///{killed}/study.db").trials
    states = [trial.state.name for trial in there]
    assert states[:3] == ["FAIL", "FAIL", "COMPLETE"]
    assert len({trial.user_attrs["stopctl.directory"] for trial in there}) == len(there) - 2
    (once,) = optuna.load_study(study_name="lr", storage=f"sqlite:///{straight}/study.db").trials[:1]
    assert there[2].value == once.value
    assert list(there[2].intermediate_values.items()) == list(once.intermediate_values.items())


def study(**given: Any) -> Any:
    """One whose pruner says yes to what gets worse."""

    class Rising(optuna.pruners.BasePruner):
        def prune(self, study: Any, trial: Any) -> bool:
            values = list(trial.intermediate_values.values())
            return len(values) > 1 and values[-1] > values[-2]

    return optuna.create_study(pruner=Rising(), **given)


def objective(folder: Path, told: list[Any], *, die: int = 0, **settings: Any) -> Any:
    """An objective whose loop ends with an error after epoch ``die``; it tells what was trained."""

    def run_trial(trial: Any) -> float:
        x = trial.suggest_categorical("x", [1, 2])
        state = {"x": x}
        given = {"stop": Patience(5), "save": None, **settings}
        stop = given.pop("stop") | Pruned(trial)
        with Run(directory(trial, folder), state=state, stop=stop, **given) as run:
            for epoch in run.epochs(len(VALUES)):
                told.append((trial.number, epoch))
                run.report(val_loss=VALUES[epoch - 1])
                run.save(f"after-{epoch}")
                if epoch == die:
                    raise ConnectionError
        return result(trial, run)

    return run_trial


def retry(which: Any) -> None:
    """What Optuna does with a trial whose heart has stopped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optuna.storages.RetryHeartbeatStaleTrialCallback()(which, which.trials[-1])


def test_a_retried_trial_knows_the_steps_of_before_and_is_pruned_as_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    told: list[Any] = []
    search = study()
    search.optimize(objective(tmp_path, told, die=4), n_trials=1, catch=ConnectionError)
    retry(search)
    search.optimize(objective(tmp_path, told), n_trials=1)
    assert told == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5)]
    assert search.trials[1].state.name == "PRUNED"
    assert search.trials[1].intermediate_values == dict(enumerate(VALUES[:5]))
    retry(search)  # as if it had died just before Optuna knew
    search.optimize(objective(tmp_path, told), n_trials=1)
    assert told[5:] == []
    assert search.trials[2].state.name == "PRUNED"
    assert search.trials[2].intermediate_values == dict(enumerate(VALUES[:5]))


def test_a_finished_trial_that_is_retried_trains_nothing_and_says_so(tmp_path: Path, caplog: Any) -> None:
    told: list[Any] = []
    search = optuna.create_study(pruner=optuna.pruners.NopPruner())
    search.optimize(objective(tmp_path, told, stop=Patience(1)), n_trials=1)
    assert (search.trials[0].value, told[-1]) == (0.25, (0, 5))
    retry(search)
    with caplog.at_level(logging.INFO, "stopctl"):
        search.optimize(objective(tmp_path, told, stop=Patience(1)), n_trials=1)
    assert (search.trials[1].value, len(told)) == (0.25, 5)
    assert "finished before: stopped at epoch 5 of 6, no improvement over 0.25" in caplog.text


def test_an_equal_new_trial_begins_anew_also_beside_that_of_another_study(
    tmp_path: Path, caplog: Any
) -> None:
    told: list[Any] = []
    search = optuna.create_study(pruner=optuna.pruners.NopPruner())
    for _ in range(2):
        search.enqueue_trial({"x": 1})
        search.optimize(objective(tmp_path, told), n_trials=1)
    again = optuna.create_study(pruner=optuna.pruners.NopPruner())
    with caplog.at_level(logging.INFO, "stopctl"):
        again.optimize(objective(tmp_path, told), n_trials=1)
    assert [number for number, epoch in told if epoch == 1] == [0, 1, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trial-0000", "trial-0000-2", "trial-0001"]
    assert "trial-0000 is another study's, so this trial begins beside it" in caplog.text


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    told: list[Any] = []
    search = study()
    search.enqueue_trial({"x": 1})
    search.optimize(objective(tmp_path, told, die=2), n_trials=1, catch=ConnectionError)
    known = search.trials[0].user_attrs
    search.enqueue_trial({"x": 2}, user_attrs=known)
    with pytest.raises(SettingError, match="has the directory of trial 0, .*but x=2 where that has 1"):
        search.optimize(objective(tmp_path, told), n_trials=1)
    search.enqueue_trial({"x": 1}, user_attrs=known)
    with (
        Run(known["stopctl.directory"], state={"x": 1}) as held,
        pytest.raises(LockedError),
    ):
        for _ in held.epochs(4):
            search.optimize(objective(tmp_path, told), n_trials=1)
    with pytest.raises(SettingError, match=r"write create_study\(direction='maximize'\), or another goal"):
        study().optimize(objective(tmp_path, told, goal=Maximize("f1")), n_trials=1)
    with pytest.raises(SettingError, match="a study of 2 objectives"):
        study(directions=["minimize"] * 2).optimize(objective(tmp_path, told), n_trials=1)
    with pytest.raises(ReportError, match="'val_los', which a rule watches; it has: val_loss"):
        study().optimize(objective(tmp_path, told, goal=Minimize("val_los")), n_trials=1)
    with pytest.raises(SettingError, match="give the trial"):
        Pruned(3)  # type: ignore[arg-type]


def test_a_run_that_is_gone_is_told_and_a_trial_without_a_finite_value_is_pruned(
    tmp_path: Path, caplog: Any
) -> None:
    told: list[Any] = []
    search = optuna.create_study()
    search.optimize(objective(tmp_path / "here", told, die=1), n_trials=1, catch=ConnectionError)
    retry(search)
    search.optimize(objective(tmp_path / "there", told), n_trials=1)
    assert "is to go on with this run, but it is not there: the trial begins anew" in caplog.text
    assert search.trials[1].user_attrs["stopctl.directory"] == str(tmp_path / "there" / "trial-0000")

    def diverges(trial: Any) -> float:
        stop = NonFinite() | Pruned(trial)
        with Run(directory(trial, tmp_path / "nan"), state={}, stop=stop) as run:
            for _ in run.epochs(3):
                run.report(val_loss=float("nan"))
        return result(trial, run)

    lost = optuna.create_study(pruner=optuna.pruners.NopPruner())
    lost.optimize(diverges, n_trials=1)
    assert lost.trials[0].state.name == "PRUNED"
