"""XGBoost and LightGBM as runs: broken off anywhere they end with the same trees, or say why not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.program import assert_same_bits, play, programs
from stopctl import (
    EarlyStopper,
    Every,
    Maximize,
    Minimize,
    MismatchError,
    NotARunError,
    Patience,
    ReportError,
    SettingError,
)
from stopctl.store import Reader

xgb = pytest.importorskip("xgboost")
lgb = pytest.importorskip("lightgbm")

from stopctl.boosters import lightgbm, xgboost  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 6))
Y = X[:, 0] * X[:, 1] + X[:, 2] + 0.1 * RNG.normal(size=200)
GOALS = {"xgboost": Minimize("valid_rmse"), "lightgbm": Minimize("valid_l2")}
LIBRARIES = list(GOALS)


class Broken(Exception):
    """Ends a training from outside."""


def breaking(library: str, after: int) -> list[Any]:
    """Callbacks that break a training off before round ``after`` of this opening, from 0."""

    class Break(xgb.callback.TrainingCallback):
        def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if epoch == after:
                raise Broken
            return False

    def end(env: Any) -> None:
        if env.iteration - env.begin_iteration == after:
            raise Broken

    end.before_iteration = True  # type: ignore[attr-defined]
    return [Break()] if library == "xgboost" else [end]


def boost(library: str, directory: Path, *, rounds: int = 300, **given: Any) -> Any:
    """Train by a library as a run; ``params`` are added to what all have."""
    params = given.pop("params", {})
    settings: dict[str, Any] = {"goal": GOALS[library], "stop": Patience(8), "save": Every(steps=5), **given}
    if library == "xgboost":
        data, valid = xgb.DMatrix(X[:150], Y[:150]), xgb.DMatrix(X[150:], Y[150:])
        params = {"eta": 0.3, "max_depth": 3, "seed": 1, "nthread": 1, **params}
        settings = {"evals": [(valid, "valid")], **settings}
        return xgboost.train(params, data, rounds, directory=directory, **settings)
    data = lgb.Dataset(X[:150], Y[:150], free_raw_data=False)
    valid = lgb.Dataset(X[150:], Y[150:], reference=data)
    fixed = {"deterministic": True, "force_row_wise": True, "num_threads": 1, "verbose": -1}
    params = {"learning_rate": 0.3, "metric": "l2", "seed": 1, **fixed, **params}
    settings = {"valid_sets": [valid], "valid_names": ["valid"], **settings}
    return lightgbm.train(params, data, rounds, directory=directory, **settings)


def trees(booster: Any) -> str:
    """All that a booster has learned; LightGBM's text without the parameters, which tell how often it went on."""
    if isinstance(booster, lgb.Booster):
        return booster.model_to_string(num_iteration=-1).partition("\nparameters:")[0]
    return booster.save_raw("json").decode()


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_program_of_the_page_killed_twice_ends_with_the_same_trees(library: str, tmp_path: Path) -> None:
    (program,) = (each for each in programs("boosters") if f'directory="runs/{library}"' in each)
    printed = play(straight := tmp_path / "straight", program)
    play(killed := tmp_path / "killed", program, "25")
    play(killed, program, "save-2")
    told = play(killed, program)
    assert f"runs/{library}: resumed from epoch-0000-step-000000030-" in told
    assert told.splitlines()[0] == printed.splitlines()[0], "what the program itself prints"
    run = Path("runs", library)
    if library == "xgboost":  # LightGBM's text has the number of rounds that were to come
        assert_same_bits(straight / run, killed / run)


@pytest.mark.parametrize("library", LIBRARIES)
def test_broken_off_twice_it_ends_as_undisturbed_and_finished_it_trains_nothing(
    library: str, tmp_path: Path, caplog: Any
) -> None:
    straight = boost(library, tmp_path / "straight")
    for after in (12, 7):
        with pytest.raises(Broken):
            boost(library, tmp_path / "broken", callbacks=breaking(library, after))
    ended = boost(library, tmp_path / "broken")
    assert trees(ended) == trees(straight)
    assert ended.best_iteration == straight.best_iteration
    with caplog.at_level(logging.INFO, "stopctl"):
        again = boost(library, tmp_path / "broken", callbacks=breaking(library, 0))
    assert "nothing was trained" in caplog.text
    assert (trees(again), again.best_iteration) == (trees(straight), straight.best_iteration)
    x = xgb.DMatrix(X) if library == "xgboost" else X
    assert np.array_equal(again.predict(x), straight.predict(x))


@pytest.mark.parametrize("library", LIBRARIES)
def test_best_iteration_is_what_the_library_itself_finds(library: str, tmp_path: Path) -> None:
    ours = boost(library, tmp_path)
    if library == "xgboost":
        data, valid = xgb.DMatrix(X[:150], Y[:150]), xgb.DMatrix(X[150:], Y[150:])
        params = {"eta": 0.3, "max_depth": 3, "seed": 1, "nthread": 1}
        theirs = xgb.train(
            params, data, 300, evals=[(valid, "valid")], early_stopping_rounds=8, verbose_eval=False
        )
        assert (ours.best_score, ours.get_dump()) == (theirs.best_score, theirs.get_dump())
    else:
        data = lgb.Dataset(X[:150], Y[:150])
        fixed = {"deterministic": True, "force_row_wise": True, "num_threads": 1, "verbose": -1}
        params = {"learning_rate": 0.3, "metric": "l2", "seed": 1, **fixed}
        stop = lgb.early_stopping(8, verbose=False)
        theirs = lgb.train(
            params, data, 300, [lgb.Dataset(X[150:], Y[150:], reference=data)], callbacks=[stop]
        )
        assert np.array_equal(ours.predict(X), theirs.predict(X))
    assert ours.best_iteration == theirs.best_iteration


DRAWING = [
    ("xgboost", {"subsample": 0.6}),
    ("xgboost", {"colsample_bynode": 0.5}),
    ("xgboost", {"booster": "dart", "rate_drop": 0.5}),
    ("lightgbm", {"bagging_fraction": 0.6, "bagging_freq": 1}),
    ("lightgbm", {"feature_fraction": 0.5}),
    ("lightgbm", {"data_sample_strategy": "goss"}),
    ("lightgbm", {"extra_trees": True}),
]


@pytest.mark.parametrize(("library", "params"), DRAWING)
def test_what_draws_ends_with_other_trees_and_says_so_once(
    library: str, params: dict[str, Any], tmp_path: Path, caplog: Any
) -> None:
    given: dict[str, Any] = {"params": params, "stop": None, "rounds": 24}
    with caplog.at_level(logging.INFO, "stopctl"):
        straight = boost(library, tmp_path / "straight", **given)
    (line,) = (each for each in caplog.records if "draws from a generator" in each.message)
    assert line.levelno == logging.INFO
    with pytest.raises(Broken):
        boost(library, tmp_path / "broken", callbacks=breaking(library, 12), **given)
    caplog.clear()
    ended = boost(library, tmp_path / "broken", **given)
    assert trees(ended) != trees(straight)
    told = [each.message for each in caplog.records if "from here on the rounds that follow" in each.message]
    assert len(told) == 1
    assert f"{next(reversed(params)) if library == 'xgboost' else next(iter(params))}=" in told[0]
    caplog.clear()
    boost(library, tmp_path / "broken", **given)
    assert "draws from" not in caplog.text, "a finished run draws nothing"


def test_bagging_without_a_frequency_draws_nothing(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, "stopctl"):
        boost("lightgbm", tmp_path, params={"bagging_fraction": 0.6}, rounds=3)
    assert "draws from" not in caplog.text


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_cannot_be_is_refused_and_changes_nothing(library: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    boost(library, run, rounds=6)
    before = [info.name for info in Reader(run).list().good]
    with pytest.raises(
        MismatchError, match=r"allow_missing=\{'params'\} to go on with these:\n  max_depth: saved"
    ):
        boost(library, run, params={"max_depth": 2}, rounds=12)
    assert [info.name for info in Reader(run).list().good] == before
    boost(library, run, params={"nthread": 2, "verbosity": -1 if library == "lightgbm" else 0}, rounds=12)
    with pytest.raises(ReportError, match=f"has no 'val_loss', .*write goal=.*{GOALS[library].metric}"):
        boost(library, tmp_path / "metric", goal=Minimize("val_loss"))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").touch()
    with pytest.raises(NotARunError, match=r"it has no run\.json, but notes\.txt"):
        boost(library, tmp_path / "foreign")
    with pytest.raises(SettingError, match="is the run's to decide: write num_boost_round="):
        boost(library, run, params={"n_estimators": 20})
    with pytest.raises(SettingError, match=r"a run is judged by a metric: write (evals|valid_sets)="):
        boost(library, run, **{"evals" if library == "xgboost" else "valid_sets": []})
    stopping = (
        xgb.callback.EarlyStopping(rounds=3) if library == "xgboost" else lgb.early_stopping(3, verbose=False)
    )
    with pytest.raises(SettingError, match=r"EarlyStopping.*counts rounds by itself.*write stop=Patience"):
        boost(library, run, callbacks=[stopping])
    assert boost(library, run, params={"max_depth": 2}, rounds=14, allow_missing={"params"}) is not None


def test_lightgbm_refuses_what_it_does_not_continue_and_a_goal_the_wrong_way_round(tmp_path: Path) -> None:
    forest = {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1}
    for params in (forest, {"linear_tree": True}):
        with pytest.raises(SettingError, match="LightGBM does not continue it as it was"):
            boost("lightgbm", tmp_path, params=params)
    with pytest.raises(SettingError, match=r"smaller l2 is better: write Minimize\('valid_l2'\)"):
        boost("lightgbm", tmp_path, goal=Maximize("valid_l2"), callbacks=None)
    freed = lgb.Dataset(X[:150], Y[:150])  # which no run could go on with
    with pytest.raises(SettingError, match=r"write lgb.Dataset\(..., free_raw_data=False\)"):
        lightgbm.train({}, freed, directory=tmp_path / "freed", valid_sets=[freed])
    assert not (tmp_path / "freed").exists()


def xgb_fit(stopper: EarlyStopper, metric: str | None = None) -> Any:
    model = xgb.XGBRegressor(n_estimators=200, callbacks=[xgboost.Stopping(stopper, metric)])
    return model.fit(X[:150], Y[:150], eval_set=[(X[150:], Y[150:])], verbose=False)


def lgb_fit(stopper: EarlyStopper, metric: str | None = None) -> Any:
    model = lgb.LGBMRegressor(n_estimators=200, verbose=-1)
    return model.fit(
        X[:150], Y[:150], eval_set=[(X[150:], Y[150:])], callbacks=[lightgbm.Stopping(stopper, metric)]
    )


@pytest.mark.parametrize(("fit", "first"), [(xgb_fit, 0), (lgb_fit, 1)], ids=LIBRARIES)
@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")
def test_a_stopper_alone_ends_a_training_of_scikit_learns_classes(
    fit: Callable[..., Any], first: int
) -> None:
    stopper = EarlyStopper(patience=4)
    model = fit(stopper)
    assert stopper.stopped is not None
    at = model.best_iteration if first == 0 else model.best_iteration_
    assert at == stopper.best_step - 1 + first
    with pytest.raises(ReportError, match="metric='auc': there is valid"):
        fit(EarlyStopper(), "auc")


def test_the_program_on_stopping_runs(capsys: Any) -> None:
    (program,) = (each for each in programs("boosters") if "XGBRegressor" in each)
    exec(compile(program, "boosters.md", "exec"), {})
    assert "no improvement over" in capsys.readouterr().out
