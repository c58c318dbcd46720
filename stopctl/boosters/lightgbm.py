"""LightGBM: training as a run, and early stopping by `EarlyStopper` alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import lightgbm as lgb

from stopctl import EarlyStopper, RunSettings, SettingError
from stopctl.boosters.parameters import drawing, refuse_decided, refuse_lightgbm
from stopctl.boosters.rounds import BoosterState, Rounds, judge

__all__ = ["Stopping", "train"]


def train(
    params: Mapping[str, Any],
    train_set: lgb.Dataset,
    num_boost_round: int = 100,
    *,
    directory: str | Path,
    valid_sets: Sequence[lgb.Dataset],
    valid_names: Sequence[str] | None = None,
    feval: Any = None,
    callbacks: Sequence[Callable[..., Any]] | None = None,
    **settings: Unpack[RunSettings],
) -> lgb.Booster:
    """``lightgbm.train`` as a run: it stops by the rules, and killed and called again it goes on.

    Each round is a step of the run and reports every metric of ``valid_sets`` as ``NAME_METRIC``, such as
    ``valid_0_l2``. Ends bitwise as an undisturbed training, unless a parameter has LightGBM draw (the run
    says so): bagging, ``feature_fraction``, DART, GOSS, ``extra_trees``, quantized gradients. Across
    processes LightGBM itself is exact with ``deterministic=True`` and ``force_row_wise=True``.

    Args:
        params: as for ``lightgbm.train``; a run goes on with the same alone.
        train_set: the training data, with ``free_raw_data=False``, as a run that goes on predicts it first.
        num_boost_round: rounds in all, over all openings.
        directory: the run's.
        valid_sets: data to evaluate on after each round.
        valid_names: their names; ``valid_0`` and so on where None.
        feval: as for ``lightgbm.train``.
        callbacks: as for ``lightgbm.train``.
        settings: of `stopctl.Run`. ``goal`` names one of the metrics. ``save`` is
            ``Every(overhead=0.05)`` by default.

    Returns:
        The booster with all rounds, which predicts by those up to ``best_iteration``, counted from 1. Of a
        run that had ended before, the saved one.

    Raises:
        SettingError: nothing to evaluate on; a training set that frees its raw data; a goal the wrong way
            round; random forests and linear trees, which LightGBM does not continue; a callback or parameter
            that stops or changes rounds by itself.
        MismatchError: the directory has a run with other parameters or data.
        Preempted, SaveError: as from `stopctl.Run.report`.
    """
    for each in callbacks or ():  # private classes of LightGBM 4.7, whose names are in no public place
        if type(each).__name__ in ("_EarlyStoppingCallback", "_ResetParameterCallback"):
            raise SettingError(
                f"callbacks=[{type(each).__name__.strip('_')}] counts rounds by itself, anew when the run "
                "goes on: write stop=Patience(n), and other parameters in a run of its own"
            )
    if not valid_sets:
        raise SettingError("valid_sets=[]: a run is judged by a metric: write valid_sets=[valid_set]")
    refuse_decided(params)
    refuse_lightgbm(params)
    if train_set.free_raw_data:
        raise SettingError(
            "train_set frees its raw data, which a run that goes on predicts first: write "
            "lgb.Dataset(..., free_raw_data=False)"
        )
    data = train_set.construct()
    state = BoosterState(lgb, params, (data.num_data(), data.num_feature()), drawing(params))
    with Rounds(directory, state, num_boost_round, settings) as rounds:
        model = lgb.Booster(model_str=state.model.decode()) if state.model else None
        if model is None or not rounds.over:
            model = lgb.train(
                dict(params),
                train_set,
                rounds.rounds - rounds.done,
                valid_sets=list(valid_sets),
                valid_names=None if valid_names is None else list(valid_names),
                feval=feval,
                init_model=model,
                keep_training_booster=True,
                callbacks=[_Round(rounds, state), *(callbacks or ())],
            )
            model.model_from_string(_text(model)).free_dataset()
        model.best_iteration = rounds.best + 1
    return model


def _text(model: Any) -> str:
    return str(model.model_to_string(num_iteration=-1))


class _Round:
    """Reports each round, after all other callbacks."""

    order, before_iteration = 1000, False

    def __init__(self, rounds: Rounds, state: BoosterState) -> None:
        self._rounds, self._state = rounds, state

    def __call__(self, env: lgb.callback.CallbackEnv) -> None:
        results = env.evaluation_result_list or []
        goal = self._rounds.run.progress.goal
        for data, name, _, bigger, *_ in results:
            if f"{data}_{name}" == goal.metric and bigger != (goal.sign < 0):
                raise SettingError(
                    f"goal={goal!r}, but for LightGBM {'larger' if bigger else 'smaller'} {name} is better: "
                    f"write {'Maximize' if bigger else 'Minimize'}({goal.metric!r})"
                )
        self._state.write = lambda: _text(env.model).encode()
        if self._rounds.report(_newest(results)):
            raise lgb.callback.EarlyStopException(self._rounds.best, results)


def _newest(results: Sequence[Any]) -> dict[str, float]:
    return {f"{each[0]}_{each[1]}": each[2] for each in results}


class Stopping:
    """Ends a training by an `EarlyStopper`, without files; also in ``LGBMRegressor.fit(callbacks=[...])``.

    The booster's ``best_iteration`` is the stopper's best update, so a training that goes on with the same
    stopper has the right one.

    Args:
        stopper: updated once a round.
        metric: which one, as ``NAME_METRIC``; None: the first of the first data.

    Raises:
        ReportError: no metric of that name, or none at all.
    """

    order, before_iteration = 30, False

    def __init__(self, stopper: EarlyStopper, metric: str | None = None) -> None:
        self._stopper, self._metric = stopper, metric

    def __call__(self, env: lgb.callback.CallbackEnv) -> None:
        """Update the stopper."""
        results = env.evaluation_result_list or []
        metrics = _newest(results)
        decision = judge(self._stopper, metrics, self._metric or next(iter(metrics), ""))
        if decision.stop is not None or env.iteration == env.end_iteration - 1:
            best = (self._stopper.best_step or self._stopper.steps) - 1
            raise lgb.callback.EarlyStopException(best, results)
