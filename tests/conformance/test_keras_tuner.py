"""KerasTuner copies its callbacks for each trial: every trial is a run of its own, or an error says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from conformance import guide
from stopctl import Every, OnBest, Patience
from stopctl.runs.history import reports
from stopctl.store import Reader
from stopctl_keras import FitCallback

keras_tuner = pytest.importorskip("keras_tuner")

# KerasTuner's own calls of threading, and Keras' own of NumPy in save_weights()
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

X = np.linspace(-1, 1, 12, dtype="f4").reshape(4, 3)
GIVEN: dict[str, Any] = {"validation_data": (X, X[:, :1]), "epochs": 2, "verbose": 0}


def build(hp: Any) -> Any:
    units = hp.Int("units", 1, 2)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(units), keras.layers.Dense(1)])
    model.name = f"units-{units}"
    model.compile("sgd", loss="mse")
    return model


def search(folder: Path, what: Any, *callbacks: Any) -> dict[int, Any]:
    """Try one unit, then two; the trials by units."""
    tuner = keras_tuner.GridSearch(
        what, objective="val_loss", directory=folder, project_name="tuner", overwrite=True
    )
    tuner.search(X, X[:, :1], callbacks=list(callbacks), **GIVEN)
    return {trial.hyperparameters.get("units"): trial for trial in tuner.oracle.trials.values()}


def test_a_function_of_the_model_gives_each_trial_its_directory(tmp_path: Path) -> None:
    trials = search(tmp_path, build, FitCallback(lambda model: tmp_path / model.name, save=OnBest()))
    for units, trial in trials.items():
        told = [line["metrics"]["val_loss"] for line in reports(Reader(tmp_path / f"units-{units}"))]
        assert (len(told), min(told)) == (2, pytest.approx(trial.score))


def test_the_second_model_in_one_directory_is_an_error_of_its_trial(tmp_path: Path) -> None:
    trials = search(tmp_path, build, FitCallback(tmp_path / "run"))
    assert (trials[1].status, trials[2].status) == ("COMPLETED", "FAILED")
    assert "has trained another model there, and a directory is for one model" in trials[2].message


def test_a_search_that_was_broken_off_is_gone_on_with_by_runs_of_its_trials(tmp_path: Path) -> None:
    epochs: list[tuple[int, int]] = []

    class Note(keras.callbacks.Callback):
        def __init__(self, units: int, ends: bool) -> None:
            super().__init__()
            self.units, self.ends = units, ends

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            epochs.append((self.units, epoch + 1))
            if self.ends and epochs[-1] == (2, 2):
                raise KeyboardInterrupt

    class Units(keras_tuner.HyperModel):
        ends = True

        def build(self, hp: Any) -> Any:
            return build(hp)

        def fit(self, hp: Any, model: Any, *args: Any, callbacks: Any = (), **given: Any) -> Any:
            units = hp.get("units")
            control = FitCallback(tmp_path / f"units-{units}", save=Every(epochs=1))
            model.fit(*args, callbacks=[*callbacks, Note(units, self.ends), control], **given)
            return control.run.progress.best

    hyper = Units()
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, hyper)
    hyper.ends = False
    trials = search(tmp_path, hyper)
    assert epochs == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 2)]
    assert {trial.status for trial in trials.values()} == {"COMPLETED"}


def test_the_code_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = keras.ops.ones((8, 3)), keras.ops.ones((8, 1))
    names: dict[str, Any] = {"keras": keras, "keras_tuner": keras_tuner, "x": x, "y": y, "valid": (x, y)}
    names |= {"FitCallback": FitCallback, "OnBest": OnBest, "Patience": Patience}
    for code in (code for code in guide.blocks("Keras") if "keras_tuner" in code):
        names = guide.run(code, **names)
    assert {path.name for path in Path("runs").iterdir()} == {f"units-{n}" for n in (4, 8, 12, 16)}
