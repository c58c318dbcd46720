"""Keywords of other libraries, and what to write here instead."""

from __future__ import annotations

from collections.abc import Collection

from stopctl.core.errors import SettingError

_HERE = {
    "monitor": "goal=Minimize('val_loss'), or goal=Maximize('accuracy')",
    "mode": "goal=Minimize(metric) or goal=Maximize(metric)",
    "patience": "stop=Patience(n)",
    "min_delta": "stop=Patience(n, min_delta=...)",
    "baseline": "stop=Patience(n, baseline=...)",
    "start_from_epoch": "stop=Patience(n, start_from=...), which counts reports",
    "restore_best_weights": "run.restore_best() after the loop, or FitCallback(..., restore_best=True)",
    "save_best_only": "save=OnBest()",
    "save_weights_only": "load(directory, model=...), which reads the weights alone",
    "save_freq": "save=Every(epochs=...) or save=Every(steps=...)",
    "save_top_k": "keep=Best(k)",
    "max_to_keep": "keep=Last(n)",
    "every_n_epochs": "save=Every(epochs=n)",
    "filepath": "the run's directory as the first argument",
    "check_finite": "stop=Patience(n) | NonFinite()",
    "stopping_threshold": "stop=Patience(n) | Target(x)",
    "divergence_threshold": "stop=Patience(n) | Diverged(x)",
    "early_stopping_patience": "stop=Patience(n)",
    "early_stopping_threshold": "stop=Patience(n, min_delta=...)",
    "metric_for_best_model": "goal=Minimize('val_loss'), or goal=Maximize('accuracy')",
    "greater_is_better": "goal=Minimize(metric) or goal=Maximize(metric)",
    "load_best_model_at_end": "run.restore_best() after the loop",
    "n_saved": "keep=Last(n) or keep=Best(n)",
    "save_last": "keep=Last(1), which is always kept",
    "best_fn": "goal=Minimize(metric) or goal=Maximize(metric)",
    "verbose": "logging.getLogger('stopctl').setLevel(logging.INFO)",
}
_STOPPER = {
    "monitor": "nothing: give the value itself to update(value)",
    "restore_best_weights": "decision.new_best to keep a copy of your own, or use Run and run.restore_best()",
    "start_from_epoch": "start_from=..., which counts updates",
    "check_finite": "nonfinite='stop'",
    "delta": "min_delta=...",
    "threshold": "min_delta=...",
    "stopping_threshold": "target=...",
    "divergence_threshold": "diverged=...",
    "early_stopping_patience": "patience=...",
    "early_stopping_threshold": "min_delta=...",
    "greater_is_better": "mode='min' or mode='max'",
    "verbose": "print(decision.stop), which is the sentence",
}


_GONE = {
    "compress": "trained weights hardly get smaller and saving takes longer; what is compressed is still read"
}


def refuse_unknown(where: str, given: Collection[str]) -> None:
    """Raise SettingError for keywords that ``where`` does not have."""
    table = _STOPPER if where == "EarlyStopper" else _HERE
    for name in sorted(given):
        if table is _HERE and name in _GONE:
            raise SettingError(f"{where} has no {name}= any more: leave it out ({_GONE[name]})")
        hint = f": write {table[name]}" if name in table else ""
        raise SettingError(f"{where} has no {name}={hint}" if hint else f"{where} has no argument {name!r}")
