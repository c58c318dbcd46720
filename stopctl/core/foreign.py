"""Keywords of other libraries, and what to write here instead."""

from __future__ import annotations

from collections.abc import Mapping

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
    "verbose": "logging.getLogger('stopctl').setLevel(logging.INFO)",
}
_STOPPER = {
    "monitor": "nothing: give the value itself to update(value)",
    "restore_best_weights": "decision.new_best to keep a copy of your own, or use Run and run.restore_best()",
    "start_from_epoch": "start_from=..., which counts updates",
    "check_finite": "nonfinite='stop'",
    "delta": "min_delta=...",
    "verbose": "print(decision.stop), which is the sentence",
}


def refuse_foreign(where: str, given: Mapping[str, object]) -> None:
    """Raise SettingError when there is a keyword that ``where`` does not have."""
    table = _STOPPER if where == "EarlyStopper" else _HERE
    for name in given:
        hint = f": write {table[name]}" if name in table else ""
        raise SettingError(f"{where} has no {name}={hint}" if hint else f"{where} has no argument {name!r}")
