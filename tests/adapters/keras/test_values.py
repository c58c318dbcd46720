"""What loops hold besides variables, in ``extra=``: filled in place on a resume, or refused with what to write."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from stopctl import Every, Indices, MismatchError, SettingError, TreeError
from stopctl_keras import KerasState
from stopctl_tf import Run, TfState


class Order:
    """An object that tells its state."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["values"].sum() < 0:
            raise ValueError("negative")
        self.values = state["values"]


def extra(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    loop = {"lr": seed / 2, "seen": [seed] * seed, "hidden": rng.normal(size=3), "rng": rng, "best": None}
    return {"order": Order([seed, seed + 1]), "loop": loop, "python": random.Random(seed), "steps": [seed]}


def plain(given: dict[str, Any]) -> Any:
    loop = {**given["loop"], "hidden": given["loop"]["hidden"].tolist(), "rng": given["loop"]["rng"].random()}
    return given["order"].values.tolist(), loop, given["python"].random(), given["steps"]


@pytest.mark.parametrize("kind", [TfState, KerasState])
def test_objects_and_values_go_on_in_the_objects_that_they_are(kind: Any) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    saved = kind(model=model, extra=(first := extra(3))).capture()
    expected = plain(first)
    state = kind(model=model, extra=(second := extra(5)))
    hidden, loop = second["loop"]["hidden"], second["loop"]
    state.restore(saved)
    assert second["loop"] is loop
    assert loop["hidden"] is hidden
    assert plain(second) == expected
    names = {"extra.order", "extra.loop", "extra.python", "extra.steps"}
    assert names <= set(state.per_rank() if kind is TfState else saved)
    assert isinstance(state.outline()["extra.loop"], dict), "it is tried before a pass is trained"


def test_a_capture_stays_what_it_was_and_a_failed_restore_changes_nothing() -> None:
    given = extra(3)
    state = TfState(model=tf.Variable(1.0), extra=given)
    saved = state.capture()
    given["loop"]["hidden"][:] = 9.0
    other = TfState(model=tf.Variable(1.0), extra={"order": Order([-1]), "loop": given["loop"]}).capture()
    before = given["loop"]["hidden"].copy()
    mixed = {**saved, "extra.loop": other["extra.loop"], "extra.order": other["extra.order"]}
    given["loop"]["hidden"][:] = 7.0
    with pytest.raises(ValueError, match="negative"):
        state.restore(mixed)
    assert given["loop"]["hidden"].tolist() == [7.0] * 3
    state.restore(saved)
    assert given["loop"]["hidden"].tolist() != before.tolist()


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"n": 3}, SettingError, r"extra.n is an int, .* extra=\{\"loop\": \{\"n\": \.\.\.\}\}"),
        ({"n": (1, 2)}, SettingError, "extra.n is a tuple, into which no saved one can be put"),
        ({"a": np.broadcast_to(1.0, 3)}, SettingError, r"pass a copy\(\) of it"),
        ({"d": {"v": tf.Variable(1.0), "n": 1}}, TreeError, r"given by itself: extra=\{\"v\": \.\.\.\}"),
        ({"d": {"v": tf.constant(1.0)}}, TreeError, "extra.d/v is a EagerTensor: hold numbers as NumPy"),
        ({"d": {"o": Order([1])}}, TreeError, "extra.d/o is a Order, which is given by itself"),
        ({"d": {"f": print}}, TreeError, "extra.d/f"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_a_pass(
    tmp_path: Path, given: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text), Run(tmp_path, model=tf.Variable(1.0), extra=given):
        pass


def test_values_that_do_not_fit_are_mismatches_by_their_paths() -> None:
    saved = TfState(model=tf.Variable(1.0), extra=extra(3)).capture()
    wrong = extra(3)
    wrong["loop"]["hidden"], wrong["order"] = np.zeros(4), [1.0]
    with pytest.raises(MismatchError) as caught:
        TfState(model=tf.Variable(1.0), extra=wrong).restore(saved)
    assert "extra.loop/hidden" in str(caught.value)
    assert "extra.order" in str(caught.value)


class Crash(Exception):
    """The process ends here."""


def test_a_generator_of_the_loop_goes_on_inside_an_epoch(tmp_path: Path) -> None:
    def train(directory: Path, seed: int, crash: int = 0) -> list[float]:
        weight, loop = tf.Variable(0.0), {"rng": np.random.default_rng(seed), "drawn": []}
        with Run(directory, model=weight, extra={"loop": loop}, stop=None, save=Every(steps=1)) as run:
            for _ in run.epochs(1):
                for _ in run.batches(Indices(6, batch_size=2)):
                    if run.batch == crash:
                        raise Crash
                    loop["drawn"].append(loop["rng"].random())
                run.report(val_loss=1.0)
        return loop["drawn"]

    straight = train(tmp_path / "a", 1)
    with pytest.raises(Crash):
        train(tmp_path / "b", 1, crash=3)
    assert train(tmp_path / "b", 2) == straight
