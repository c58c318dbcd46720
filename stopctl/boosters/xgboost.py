"""XGBoost: training as a run, and early stopping by `EarlyStopper` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import xgboost as xgb

from stopctl import EarlyStopper, RunSettings, SettingError
from stopctl.boosters.parameters import drawing, refuse_decided
from stopctl.boosters.rounds import BoosterState, Rounds, judge

__all__ = ["Stopping", "train"]


def train(
    params: Mapping[str, Any],
    dtrain: xgb.DMatrix,
    num_boost_round: int = 10,
    *,
    directory: str | Path,
    evals: Sequence[tuple[xgb.DMatrix, str]],
    obj: Any = None,
    custom_metric: Any = None,
    callbacks: Sequence[xgb.callback.TrainingCallback] | None = None,
    **settings: Unpack[RunSettings],
) -> xgb.Booster:
    """``xgboost.train`` as a run: it stops by the rules, and killed and called again it goes on.

    Each round is a step of the run and reports every metric of ``evals`` as ``NAME_METRIC``, such as
    ``valid_rmse``. Ends bitwise as an undisturbed training, unless a parameter has XGBoost draw (the run says
    so): ``subsample``, ``colsample_by*``, the dropping of DART.

    Args:
        params: as for ``xgboost.train``; a run goes on with the same alone.
        dtrain: the training data; its rows and columns must be the same when the run goes on.
        num_boost_round: rounds in all, over all openings.
        directory: the run's.
        evals: data to evaluate on after each round, with names.
        obj: as for ``xgboost.train``.
        custom_metric: as for ``xgboost.train``.
        callbacks: as for ``xgboost.train``; in a run that goes on they count from 0 again.
        settings: of `stopctl.Run`. ``goal`` names one of the metrics. ``save`` is
            ``Every(overhead=0.05)`` by default.

    Returns:
        The booster with all rounds; ``best_iteration`` is the best of all of them, counted from 0. Of a run
        that had ended before, the saved one.

    Raises:
        SettingError: nothing to evaluate on; a callback or parameter that stops or changes rounds by itself.
        MismatchError: the directory has a run with other parameters or data.
        Preempted, SaveError: as from `stopctl.Run.report`.
    """
    for each in callbacks or ():
        if isinstance(each, xgb.callback.EarlyStopping | xgb.callback.LearningRateScheduler):
            raise SettingError(
                f"callbacks=[{type(each).__name__}(...)] counts rounds by itself, anew when the run goes on: "
                "write stop=Patience(n), and another eta in a run of its own"
            )
    if not evals:
        raise SettingError("evals=[]: a run is judged by a metric: write evals=[(dvalid, 'valid')]")
    refuse_decided(params)
    state = BoosterState(xgb, params, (dtrain.num_row(), dtrain.num_col()), drawing(params))
    with Rounds(directory, state, num_boost_round, settings) as rounds:
        model = xgb.Booster(dict(params), model_file=bytearray(state.model)) if state.model else None
        if model is None or not rounds.over:
            model = xgb.train(
                dict(params),
                dtrain,
                rounds.rounds - rounds.done,
                evals=evals,
                obj=obj,
                custom_metric=custom_metric,
                callbacks=[_Round(rounds, state), *(callbacks or ())],
                xgb_model=model,
                verbose_eval=False,
            )
        best = rounds.run.progress.best
        model.set_attr(best_iteration=str(rounds.best), best_score=None if best is None else str(best))
    return model


class _Round(xgb.callback.TrainingCallback):
    """Reports each round; the first of the callbacks, as one that ends the training leaves out the next."""

    def __init__(self, rounds: Rounds, state: BoosterState) -> None:
        super().__init__()
        self._rounds, self._state = rounds, state

    def before_training(self, model: xgb.Booster) -> xgb.Booster:
        self._state.write = lambda: model.save_raw("ubj")
        return model

    def after_iteration(self, model: xgb.Booster, epoch: int, evals_log: Any) -> bool:
        return self._rounds.report(_newest(evals_log))


def _newest(evals_log: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, float]:
    return {f"{data}_{name}": log[-1] for data, logs in evals_log.items() for name, log in logs.items()}


class Stopping(xgb.callback.TrainingCallback):
    """Ends a training by an `EarlyStopper`, without files; also in ``XGBRegressor(callbacks=[...])``.

    The booster's ``best_iteration`` is the stopper's best update, so a training that goes on with the same
    stopper has the right one.

    Args:
        stopper: updated once a round.
        metric: which one, as ``NAME_METRIC``; None: the last of the last data, as XGBoost does.

    Raises:
        ReportError: no metric of that name, or none at all.
    """

    def __init__(self, stopper: EarlyStopper, metric: str | None = None) -> None:
        super().__init__()
        self._stopper, self._metric = stopper, metric

    def after_iteration(self, model: xgb.Booster, epoch: int, evals_log: Any) -> bool:
        """Update the stopper; True ends the training."""
        metrics = _newest(evals_log)
        decision = judge(self._stopper, metrics, self._metric or next(reversed(metrics), ""))
        if decision.new_best:
            model.set_attr(best_iteration=str(self._stopper.steps - 1), best_score=str(self._stopper.best))
        return decision.stop is not None
