"""The data of fit: exact kinds resume bitwise and nothing is said; of the others one line is, with what to write."""

from __future__ import annotations

import itertools
import logging
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from stopctl import Every, Minimize
from stopctl.store import Reader
from stopctl_tf import FitCallback, epoch_shuffled

ROWS, BATCH = 16, 8
X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype("f4")
Y = X.sum(1, keepdims=True)

Given = tuple[dict[str, Any], Any]
"""What fit gets, and ``extra=``."""


class Crash(Exception):
    """The process ends here."""


class Breaks(keras.callbacks.Callback):
    """Breaks fit off at the second batch of an epoch."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.epoch = at, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.epoch == self.at and batch >= 1:
            raise Crash


class Rows(keras.utils.PyDataset):
    """Batches in an order of its own; what it holds besides moves, and is nobody's business."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.order, self.cache, self.calls = np.arange(ROWS), {}, 0

    def __len__(self) -> int:
        return ROWS // BATCH

    def __getitem__(self, i: int) -> Any:
        self.calls += 1
        self.cache[i] = rows = self.order[BATCH * i : BATCH * (i + 1)]
        return X[rows], Y[rows]


class Noisy(Rows):
    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        return x + np.random.normal(size=x.shape).astype("f4"), y

    def on_epoch_end(self) -> None:
        assert len(self.order) == ROWS


class Told(Rows):
    """Shuffles when it is told which epoch begins."""

    def __init__(self, epoch: Any) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self) -> None:
        self.order = np.random.default_rng([1, int(self.epoch)]).permutation(ROWS)


class Shuffled(Rows):
    def on_epoch_end(self) -> None:
        self._shuffle()

    def _shuffle(self) -> None:
        random.shuffle(self.order)


class Drawn(Rows):
    """Its generator lies in a list; the order is a list as well."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(3)

    def on_epoch_end(self) -> None:
        self.order = [int(i) for i in self.rng.permutation(ROWS)]


class Stateful(Shuffled):
    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order[:] = state["order"]


class Endless(Rows):
    num_batches = None

    def __getitem__(self, i: int) -> Any:
        return super().__getitem__(i % 3)


def rows() -> Any:
    return tf.data.Dataset.from_tensor_slices((X, Y))


def noisy(**given: Any) -> Any:
    """With TensorFlow's own random numbers, seeded as the script is."""
    return rows().batch(BATCH).map(lambda x, y: (x + tf.random.normal((3,)), y), **given)


def augmented(**given: Any) -> tuple[Any, Any]:
    """With a layer of Keras', and that layer."""
    noise = keras.layers.GaussianNoise(0.5, seed=3)
    return rows().batch(BATCH).map(lambda x, y: (noise(x, training=True), y), **given), noise


def saved_layer(epoch: Any) -> Given:
    data, noise = augmented()
    return {"x": data}, {"noise": noise}


def stateful(epoch: Any) -> Given:
    data = Stateful()
    return {"x": data, "shuffle": False}, {"data": data, "loop": {"seen": 3, "rng": np.random.default_rng(1)}}


def generated() -> Any:
    signature = (tf.TensorSpec((None, 3)), tf.TensorSpec((None, 1)))
    batches = [(X[i : i + BATCH], Y[i : i + BATCH]) for i in range(0, ROWS, BATCH)]
    return tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)


EXACT: dict[str, Callable[[Any], Given]] = {
    "arrays": lambda epoch: ({"x": X, "y": Y, "batch_size": BATCH}, None),
    "arrays, all batches by steps": lambda epoch: (
        {"x": X, "y": Y, "batch_size": BATCH, "steps_per_epoch": 2},
        None,
    ),
    "a PyDataset": lambda epoch: ({"x": Rows(), "shuffle": False}, None),
    "a PyDataset, shuffled by fit, that draws": lambda epoch: ({"x": Noisy(), "shuffle": True}, None),
    "a PyDataset that is told the epoch": lambda epoch: ({"x": Told(epoch), "shuffle": False}, None),
    "a PyDataset in extra": stateful,
    "epoch_shuffled": lambda epoch: (
        {"x": epoch_shuffled(X, Y, seed=0, epoch=epoch, batch_size=BATCH)},
        None,
    ),
    "shuffled once": lambda epoch: (
        {"x": rows().shuffle(ROWS, seed=1, reshuffle_each_iteration=False).batch(BATCH).prefetch(1)},
        None,
    ),
    "a whole number of repetitions": lambda epoch: (
        {"x": rows().repeat().batch(12).map(lambda x, y: (x, y)), "steps_per_epoch": 4},
        None,
    ),
    "from_generator": lambda epoch: (
        {"x": generated().apply(tf.data.experimental.assert_cardinality(2))},
        None,
    ),
    "seeded draws in map": lambda epoch: ({"x": noisy()}, None),
    "a layer in map that is saved": saved_layer,
}


def fit(directory: Path, make: Callable[[Any], Given], epochs: int = 2, breaks: int = 0) -> Any:
    """One start of a script, which seeds itself alike each time; the weights, None where it broke off."""
    keras.utils.set_random_seed(3)
    epoch = tf.Variable(1, dtype=tf.int64)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    given, extra = make(epoch)
    control = FitCallback(
        directory,
        goal=Minimize("loss"),
        stop=None,
        save=Every(epochs=1),
        epoch=epoch,
        extra=extra,
        durability="process",
    )
    given = {"shuffle": "y" in given, **given}
    try:
        model.fit(**given, epochs=epochs, verbose=0, callbacks=[Breaks(breaks), control])
    except Crash:
        return None
    return [np.asarray(v).tolist() for v in model.variables]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log warned of."""
    return [r.getMessage() for r in caplog.records if r.name == "stopctl" and r.levelno >= logging.WARNING]


@pytest.mark.parametrize("kind", EXACT)
def test_a_resumed_fit_is_exact_and_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    with caplog.at_level(logging.DEBUG, "stopctl"):
        straight = fit(tmp_path / "straight", EXACT[kind])
        assert fit(tmp_path / "broken", EXACT[kind], breaks=2) is None
        assert fit(tmp_path / "broken", EXACT[kind]) == straight
    assert told(caplog) == []
    assert "nothing is seen that a resumed fit would see otherwise" in caplog.text


INEXACT: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "a generator": (
        lambda: {"x": iter_batches(), "steps_per_epoch": 2},
        "a Python generator, .* write a keras.utils.PyDataset",
    ),
    "some of the batches": (
        lambda: {"x": X, "y": Y, "batch_size": BATCH, "steps_per_epoch": 1},
        "1 of 2 batches an epoch .* leave steps_per_epoch out",
    ),
    "a PyDataset without an end": (
        lambda: {"x": Endless(), "steps_per_epoch": 2},
        r"a Endless without an end, .* give it __len__\(\)",
    ),
    "a PyDataset that shuffles itself": (
        lambda: {"x": Shuffled()},
        r"a Shuffled whose on_epoch_end\(\) moves order, .* write extra=\{\"data\": <the Shuffled>\}",
    ),
    "a PyDataset that draws its order": (
        lambda: {"x": Drawn()},
        r"a Drawn whose on_epoch_end\(\) moves order, rng,",
    ),
    "endless": (
        lambda: {"x": rows().batch(BATCH).repeat(), "steps_per_epoch": 3},
        r"goes on from epoch to epoch \(steps_per_epoch=3\), .* leave out repeat\(\) and steps_per_epoch",
    ),
    "of unknown length": (lambda: {"x": generated().repeat(), "steps_per_epoch": 2}, "goes on from epoch to"),
    "shuffle": (
        lambda: {"x": rows().shuffle(ROWS, seed=1).batch(BATCH)},
        r"write stopctl_tf.epoch_shuffled\(\.\.\., epoch=epoch\) and FitCallback\(\.\.\., epoch=epoch\)",
    ),
    "draws in parallel": (
        lambda: {"x": noisy(num_parallel_calls=2)},
        r"map\(\) function draws random numbers \(RandomStandardNormal\)",
    ),
    "draws that go on": (lambda: {"x": noisy().repeat(), "steps_per_epoch": 2}, "draws random numbers"),
    "a layer in map": (
        lambda: {"x": augmented()[0]},
        r"map\(\) function assigns a variable \(AssignVariableOp\), .* put the layer into the model",
    ),
}


def iter_batches() -> Any:
    return ((X[i : i + BATCH], Y[i : i + BATCH]) for i in itertools.cycle(range(0, ROWS, BATCH)))


@pytest.mark.parametrize("kind", INEXACT)
def test_what_a_resumed_fit_would_see_otherwise_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    make, text = INEXACT[kind]
    with caplog.at_level(logging.DEBUG, "stopctl"):
        fit(tmp_path, lambda epoch: (make(), None), epochs=2)
    (message,) = told(caplog)
    assert message.startswith(f"{tmp_path}: fit trains on ")
    (line,) = [line for line in Reader(tmp_path).journal() if line["event"] == "noticed"]
    assert line["text"] in message
    assert re.search(text, message)


def test_one_epoch_is_never_resumed_in_its_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(tmp_path, lambda epoch: ({"x": iter_batches(), "steps_per_epoch": 2}, None), epochs=1)
    assert told(caplog) == []


@pytest.mark.parametrize(("shuffle", "hidden"), [(False, False), (True, True)])
def test_a_loader_of_pytorch_that_shuffles_has_a_generator_that_is_not_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shuffle: bool, hidden: bool
) -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=shuffle)
    fit(tmp_path, lambda epoch: ({"x": loader}, None), epochs=2)
    assert [("DataLoader that shuffles" in message) for message in told(caplog)] == [True] * hidden
