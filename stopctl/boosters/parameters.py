"""What the parameters of the libraries, by all their names, mean for a training that goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stopctl import SettingError


def _named(names: str, value: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), value)


MACHINE = _named("device n_jobs nthread num_threads n_thread verbose verbosity", None).keys()
"""They say where and how loudly to train, and may differ when a run goes on."""

DECIDED = {
    **_named(
        "num_iterations num_iteration n_iter num_tree num_trees num_round num_rounds", "num_boost_round="
    ),
    **_named("nrounds num_boost_round n_estimators max_iter", "num_boost_round="),
    **_named(
        "early_stopping_round early_stopping_rounds early_stopping n_iter_no_change", "stop=Patience(n)"
    ),
}
"""What the run decides, and what to write instead."""

BOOSTING = ("boosting", "boosting_type", "boost")


def _below_one(share: Any) -> bool:
    return float(share) < 1.0


def _above_zero(share: Any) -> bool:
    return float(share) > 0.0


BAGGING = _named("bagging_fraction sub_row bagging pos_bagging_fraction neg_bagging_fraction", _below_one)
DRAWS: dict[str, Callable[[Any], bool]] = {
    **_named("subsample colsample_bytree colsample_bylevel colsample_bynode", _below_one),
    **_named("feature_fraction sub_feature feature_fraction_bynode sub_feature_bynode", _below_one),
    **BAGGING,
    **_named("rate_drop one_drop", _above_zero),
    "feature_selector": lambda name: name in ("shuffle", "random"),
    "updater": lambda name: "shotgun" in name,
    **dict.fromkeys((*BOOSTING, "data_sample_strategy"), lambda name: name in ("dart", "goss")),
    **_named("extra_trees extra_tree use_quantized_grad", bool),
    **_named("objective objective_type app application loss", lambda name: "xendcg" in str(name)),
}
"""With these a training that goes on draws other rows, columns or trees: compared bit by bit."""


def drawing(params: Mapping[str, Any]) -> str:
    """The parameters that draw, as they were given, in a sentence; empty where none does."""
    bagged = any(int(params.get(name, 0)) > 0 for name in ("bagging_freq", "subsample_freq"))
    given = {name: value for name, value in params.items() if bagged or name not in BAGGING}
    told = [f"{name}={value!r}" for name, value in given.items() if name in DRAWS and DRAWS[name](value)]
    return f"{', '.join(told)} draws from a generator whose place nobody can save" if told else ""


def refuse_decided(params: Mapping[str, Any]) -> None:
    """SettingError for parameters that are the run's to decide."""
    for name in params.keys() & DECIDED.keys():
        raise SettingError(f"{name}={params[name]!r} is the run's to decide: write {DECIDED[name]}")


def refuse_lightgbm(params: Mapping[str, Any]) -> None:
    """SettingError for what LightGBM cannot continue, or continues with other trees without drawing."""
    forest = [name for name in BOOSTING if params.get(name) in ("rf", "random_forest")]
    for name in (*forest, *(name for name in ("linear_tree", "linear_trees") if params.get(name))):
        raise SettingError(
            f"{name}={params[name]!r}: LightGBM does not continue it as it was; train it without a run"
        )
