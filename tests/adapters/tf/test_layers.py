"""What a fresh model computes after a restore: all layers of Keras, and layers of one's own."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from stopctl import Every, Minimize, MismatchError
from stopctl_tf import FitCallback, Run, TfState, load
from support.portion import mostly_long

layers = keras.layers
RNG = np.random.default_rng(0)
IMAGE, SERIES, BLOCK, ROW = (2, 8, 8, 3), (2, 4, 3), (2, 4, 4, 4, 3), (2, 3)
WORDS = np.array([["b a\n", "b"], ["c", "unknown"]])
NUMBERS = np.array([[4, 5], [5, 99]])

ELSEWHERE = {"Layer", "Wrapper", "InputLayer", "FlaxLayer", "JaxLayer", "TorchModuleWrapper", "TFSMLayer"}
"""Base classes, and those that hold a model of another framework."""

ARGUMENTS: dict[str, Any] = {
    "Activation": lambda: ["relu"],
    "CategoryEncoding": lambda: [9],
    "CenterCrop": lambda: [4, 4],
    "Discretization": lambda: [None, 3],
    "Dot": lambda: [1],
    "EinsumDense": lambda: ["abc,cd->abd", (None, 2)],
    "Embedding": lambda: [9, 2],
    "GroupNormalization": lambda: [3],
    "GroupQueryAttention": lambda: [2, 2, 1],
    "Lambda": lambda: [lambda x: 2 * x],
    "MelSpectrogram": lambda: [4, 2, 4, "hann", 8000, 3],
    "MultiHeadAttention": lambda: [2, 2],
    "Permute": lambda: [(2, 1, 3)],
    "Pipeline": lambda: [[layers.RandomFlip(seed=1), layers.Rescaling(2.0)]],
    "RandomCrop": lambda: [4, 4],
    "RandomPosterization": lambda: [4],
    "RandomTranslation": lambda: [0.1, 0.1],
    "Rescaling": lambda: [2.0],
    "Reshape": lambda: [(-1, 3)],
    "Resizing": lambda: [4, 4],
    "ReversibleEmbedding": lambda: [9, 2],
    "STFTSpectrogram": lambda: ["log", 4, 2, 4],
    "StackedRNNCells": lambda: [[layers.GRUCell(2), layers.LSTMCell(2)]],
    "MaxNumBoundingBoxes": lambda: {"max_number": 4, "bounding_box_format": "xyxy"},
    "TimeDistributed": lambda: [layers.Dense(2)],
    "Bidirectional": lambda: [layers.GRU(2)],
    "SpectralNormalization": lambda: [layers.Dense(2)],
    "RNN": lambda: [layers.LSTMCell(2)],
}
INPUTS: dict[str, Any] = {
    "Embedding": NUMBERS[:, :1] % 9,
    "ReversibleEmbedding": NUMBERS % 9,
    "CategoryEncoding": NUMBERS % 9,
    "IntegerLookup": NUMBERS,
    "StringLookup": WORDS,
    "TextVectorization": WORDS[:, :1],
    "Hashing": NUMBERS,
    "words in tf_idf": WORDS[:, :1],
    "tokens in tf_idf": WORDS,
    "tokens backwards": WORDS,
    "numbers in multi_hot": NUMBERS,
    "bins in one_hot": ROW,
    "HashedCrossing": [NUMBERS[0], NUMBERS[1]],
    "MelSpectrogram": (2, 40),
    "STFTSpectrogram": (2, 40, 1),
    "RepeatVector": ROW,
    "ConvLSTM1D": (2, 3, 4, 3),
    "ConvLSTM2D": (2, 3, 4, 4, 3),
    "ConvLSTM3D": (2, 3, 4, 4, 4, 3),
    "MaxNumBoundingBoxes": {
        "images": np.ones(IMAGE, "f4"),
        "bounding_boxes": {"boxes": np.ones((2, 3, 4), "f4"), "labels": np.ones((2, 3), "f4")},
    },
}
SHAPES = {
    SERIES: "LSTM GRU SimpleRNN RNN Bidirectional TimeDistributed EinsumDense MultiHeadAttention Dot "
    "GroupQueryAttention Attention AdditiveAttention",
    ROW: "Dense SpectralNormalization",
}
COUNTS = {"filters": 2, "kernel_size": 2, "pool_size": 2, "output_size": 2, "units": 2, "num_bins": 5, "n": 2}
SHARES = dict.fromkeys(("rate", "stddev", "factor", "height_factor"), 0.2)
VARIANTS = {
    "words in tf_idf": partial(layers.TextVectorization, 9, output_mode="tf_idf", pad_to_max_tokens=True),
    "tokens in tf_idf": partial(layers.StringLookup, output_mode="tf_idf", num_oov_indices=2),
    "tokens backwards": partial(layers.StringLookup, invert=True, mask_token=""),
    "numbers in multi_hot": partial(layers.IntegerLookup, output_mode="multi_hot", mask_token=0),
    "bins in one_hot": partial(layers.Discretization, num_bins=3, output_mode="one_hot"),
}
PAIRS = ("Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract")
TWICE = ("Attention", "AdditiveAttention")


def every_layer() -> dict[str, Any]:
    found = {name: getattr(layers, name) for name in sorted(dir(layers)) if name not in ELSEWHERE}
    kinds = {
        kind: name for name, kind in found.items() if inspect.isclass(kind) and issubclass(kind, keras.Layer)
    }
    return {name: kind for kind, name in kinds.items()} | VARIANTS  # each once, though it has several names


def make(name: str, kind: Any) -> Any:
    """A layer as a script writes it: of the table, or by the names of what it asks for."""
    if name in ARGUMENTS:
        given = ARGUMENTS[name]()
        return kind(**given) if isinstance(given, dict) else kind(*given)
    known = {**COUNTS, **SHARES}
    wanted = [
        key for key, p in inspect.signature(kind).parameters.items() if p.default is p.empty and key in known
    ]
    return kind(**{key: known[key] for key in wanted})


def numbers(shape: tuple[int, ...]) -> Any:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype="f4").reshape(shape)


def inputs(name: str) -> Any:
    given = INPUTS.get(name)
    if given is not None:
        return numbers(given) if isinstance(given, tuple) else given
    shape = next((shape for shape, names in SHAPES.items() if name in names.split()), None)
    if shape is None:
        shape = SERIES if "1D" in name else BLOCK if "3D" in name else ROW if "Cell" in name else IMAGE
    return [numbers(shape)] * 2 if name in PAIRS or name in TWICE else numbers(shape)


def call(name: str, layer: Any) -> list[Any]:
    x = NUMBERS if name == "tokens backwards" else inputs(name)
    more: dict[str, Any] = (
        {"training": False} if "training" in inspect.signature(layer.call).parameters else {}
    )
    if "Cell" in name:
        more["states"] = layer.get_initial_state(2)
    if name in ("MultiHeadAttention", "GroupQueryAttention"):
        more["value"] = x
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(layer(x, **more))]


def fresh(seed: int, names: Collection[str] | None = None) -> dict[str, Any]:
    """All of them, built where a call builds them, and none adapted."""
    keras.utils.set_random_seed(seed)
    made = {name: make(name, kind) for name, kind in every_layer().items() if names is None or name in names}
    for name, layer in made.items():
        if not hasattr(layer, "adapt") or name == "Normalization":  # which is built before it is adapted
            call(name, layer)
    return made


def differing(made: dict[str, Any], expected: dict[str, list[Any]]) -> set[str]:
    """The names of those that compute otherwise."""
    now = {name: call(name, made[name]) for name in expected}
    same = {
        n for n, ys in expected.items() if len(ys) == len(now[n]) and all(map(np.array_equal, now[n], ys))
    }
    return expected.keys() - same


def moved(variable: Any) -> bool:
    return bool(variable.dtype.startswith("float"))


def test_a_fresh_layer_of_every_kind_computes_what_the_saved_one_computed(tmp_path: Path) -> None:
    """By load, resume, start_from_run, restore_best: of Keras all, also those that it gets in later versions."""
    old, new = fresh(0), fresh(1)
    for name, layer in old.items():
        for variable in filter(moved, layer.variables):
            variable.assign(RNG.random(variable.shape) + 0.1)
        if hasattr(layer, "adapt"):
            layer.adapt(inputs(name))
    expected = {name: call(name, layer) for name, layer in old.items()}
    adapted = {name for name, layer in new.items() if hasattr(layer, "adapt")}
    stateful = {name for name, layer in new.items() if any(map(moved, layer.variables))} | adapted
    others = differing(new, {name: ys for name, ys in expected.items() if name not in adapted})
    assert others | adapted == stateful  # the rest computes the same as it is: it has no state
    assert len(stateful) > 40

    expected = {name: expected[name] for name in stateful}
    settings: Any = {"durability": "process", "save": Every(epochs=1)}
    with Run(tmp_path / "run", model={name: old[name] for name in expected}, **settings) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    load(tmp_path / "run", model={name: new[name] for name in expected})
    assert differing(new, expected) == set()

    new = fresh(2, stateful)
    with Run(tmp_path / "next", model=new, start_from_run=tmp_path / "run", **settings) as run:
        assert differing(new, expected) == set()
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
        for variable in (v for layer in new.values() for v in filter(moved, layer.variables)):
            variable.assign(variable * 0)
        run.restore_best()
    assert differing(new, expected) == set()


class Cached(keras.Layer):
    """Computes with what `finalize_state` makes of its weight."""

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(2,), initializer="random_normal")
        self.finalize_state()

    def finalize_state(self) -> None:
        self.squared = keras.ops.square(self.w) + 0.0

    def call(self, x: Any) -> Any:
        return x * self.squared


class Loading(Cached):
    """Makes it where its variables are loaded, which it merges and rounds."""

    finalize_state = None  # type: ignore[assignment]

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(2,), initializer="random_normal")
        self.squared = keras.ops.square(self.w) + 0.0

    def save_own_variables(self, store: Any) -> None:
        store["w"] = self.w

    def load_own_variables(self, store: Any) -> None:
        self.squared = keras.ops.square(store["w"])
        self.w.assign(np.round(store["w"]))


class Telling(keras.Layer):
    """Keeps words, numbers and a tf.Variable that its own methods tell, and lists of them in a file."""

    words: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable(1.0)

    def adapt(self, words: list[str]) -> None:
        self.words, self.sizes = np.array(words), np.array([len(word) for word in words], "f4")
        self.factor, self.lines = 3.0, [*words]
        self.scale.assign(5.0)

    def save_own_variables(self, store: Any) -> None:
        store["scale"] = self.scale
        store["words"], store["sizes"], store["factor"] = self.words, self.sizes, self.factor

    def load_own_variables(self, store: Any) -> None:
        self.words, self.sizes, self.factor = store["words"], store["sizes"], store["factor"]
        self.scale.assign(store["scale"])

    def save_assets(self, folder: str) -> None:
        Path(folder, "deep").mkdir()
        Path(folder, "deep", "lines.txt").write_text("\n".join(self.lines) if self.words is not None else "")

    def load_assets(self, folder: str) -> None:
        self.lines = Path(folder, "deep", "lines.txt").read_text().split("\n")

    def call(self, x: Any) -> Any:
        return x * float(sum(map(len, self.lines)) * self.factor) * self.sizes[0] * self.scale + len(
            self.words[0]
        )


def told(adapt: bool) -> Any:
    layer = Telling()
    if adapt:
        layer.adapt(["ab", "c"])
    return layer


def squared(kind: type) -> Any:
    layer = kind()
    layer.build((None, 2))
    return layer


def nested(adapt: bool) -> Any:
    """Two lookups and a Normalization inside, in a module, with a dense layer between them."""
    module = tf.Module()
    norm = layers.Normalization()
    lookup, other = layers.StringLookup(), layers.StringLookup(output_mode="tf_idf")
    if adapt:
        norm.adapt(numbers((4, 2)) * 5)
        lookup.adapt(["c", "c", "b"])
        other.adapt([["b c", "a"], ["a", "a"]])
    else:
        norm.build((None, 2))
    dense = layers.Dense(2)
    dense.build((None, 2))
    module.parts = [lookup, keras.Sequential([keras.Input((2,)), norm, dense]), {"other": other}]
    return module


def of_module(module: Any) -> list[Any]:
    lookup, model, rest = module.parts
    return [lookup(np.array(["b", "c", "x"])), model(numbers((1, 2))), rest["other"](np.array([["a", "b"]]))]


def spaced(adapt: bool) -> Any:
    space = keras.utils.FeatureSpace(
        {"word": "string_categorical", "size": "float_normalized", "age": "float_discretized"},
        output_mode="concat",
    )
    if adapt:
        data = {"word": [["a"], ["b"]], "size": [[1.0], [5.0]], "age": [[1.0], [9.0]]}
        space.adapt(tf.data.Dataset.from_tensor_slices(data))
        space.get_encoded_features()
    return space


OWN: dict[str, Any] = {
    "finalize_state": (lambda adapt: squared(Cached), lambda layer: [layer(numbers((2, 2)))]),
    "load_own_variables": (lambda adapt: squared(Loading), lambda layer: [layer(numbers((2, 2))), layer.w]),
    "save_own_variables, save_assets": (told, lambda layer: [layer(numbers((2, 2)))]),
    "module": (nested, of_module),
    "FeatureSpace": (
        spaced,
        lambda space: [space({"word": ["a", "z"], "size": [2.0, 3.0], "age": [0.5, 7.0]})],
    ),
}


@pytest.mark.parametrize(("build", "compute"), OWN.values(), ids=OWN)
def test_layers_of_one_s_own_and_layers_inside_others(
    build: Any, compute: Any, reloaded: Any, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = build(True), build(False)
    if hasattr(old, "w"):
        old.w.assign([0.3, 1.7])
        old.squared = keras.ops.square(old.w) + 0.0
    state = TfState(model=old)
    saved = reloaded(state.capture())
    assert state.notices == []
    given = TfState(model=new)
    given.restore(saved)
    assert given.notices == []
    for one, other in zip(compute(old), compute(new), strict=True):
        assert np.array_equal(one, other)
    again = reloaded(TfState(model=new).capture())
    assert (
        again["model"].get("layers") is None
        or again["model"]["layers"].keys() == saved["model"]["layers"].keys()
    )


class Table(keras.Layer):
    """Keeps what `adapt` has learned, and no method tells it."""

    def __init__(self, rows: Any = None) -> None:
        super().__init__()
        self.words: Any = None
        self.rows = np.zeros(2) if rows is None else rows
        self.last: Any = np.zeros(1)

    def adapt(self, words: list[str]) -> None:
        self.words = {word: i for i, word in enumerate(words)}
        self.sizes = np.array([float(len(word)) for word in words])
        initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(words), tf.range(len(words)))
        self.table = tf.lookup.StaticHashTable(initializer, -1)

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(2,))

    def call(self, x: Any) -> Any:
        self.last = x
        return x * self.w


class Saved(Table):
    def save_own_variables(self, store: Any) -> None:
        store["w"], store["sizes"] = self.w, self.sizes

    def load_own_variables(self, store: Any) -> None:
        self.w.assign(store["w"])
        self.sizes = store["sizes"]


Saved.__name__ = "Table"


def table(*words: str, rows: Any = None, kind: Any = Table) -> Any:
    layer = kind(rows)
    layer.build((None, 2))
    if words:
        layer.adapt([*words])
    return layer


def test_what_no_method_tells_is_named_once_and_compared(reloaded: Any) -> None:
    """Also of another processor; what moves while training, and what get_config() names, is let alone."""
    state = TfState(model=(old := table("ab", "c")))
    old(np.ones((1, 2)))
    state.capture()
    saved = reloaded(state.capture())
    held, moves = state.notices
    assert held.level == moves.level == logging.INFO
    assert "Table.0.words, Table.0.sizes, Table.0.table: held beside the variables" in held.text
    assert "model: Table.0.last: moves while training, and is not saved" in moves.text
    given = TfState(model=table("ab", "c", rows=np.ones(3)))
    given.restore(saved)
    same = table("ab", "c")
    same.sizes = same.sizes * (1 + 1e-7)
    TfState(model=same).restore(saved)
    TfState(model=table("x", kind=Saved)).restore(saved)  # by methods that were written since
    for other in (table("ab", "d"), table("c", "ab"), table()):
        before = other.w.numpy()
        with pytest.raises(
            MismatchError, match=r"model/Table.0.words: not what it was .* write save_own_variables"
        ):
            TfState(model=other).restore(saved)
        assert np.array_equal(other.w.numpy(), before)


def test_a_vocabulary_that_the_script_gives_otherwise_is_refused(reloaded: Any) -> None:
    saved = reloaded(TfState(model=layers.StringLookup(vocabulary=["a", "b"])).capture())
    TfState(model=layers.StringLookup(vocabulary=["a", "b"])).restore(saved)
    with pytest.raises(
        MismatchError, match="saved with a vocabulary of 3 tokens, given another, of 3, by vocabulary="
    ):
        TfState(model=layers.StringLookup(vocabulary=["b", "a"])).restore(saved)
    with pytest.raises(MismatchError, match="model/StringLookup.0: saved, not given"):
        TfState(model=layers.Rescaling(2.0)).restore(saved)


def test_saved_before_vocabularies_were_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Told once, by a run and by load; the vocabulary of the script stands."""
    lookup = layers.StringLookup()
    lookup.adapt(["a", "b"])
    state = TfState(model=lookup)
    trees = state.capture()
    del trees["model"]["layers"]
    state.restore(trees)
    assert [
        "model: StringLookup.0: nothing of this was saved" in notice.text for notice in state.notices
    ] == [True]
    assert lookup.get_vocabulary() == ["[UNK]", "b", "a"]
    fresh = TfState(model=layers.StringLookup())
    fresh.restore(trees)
    assert fresh.notices == []


def test_what_was_traced_before_is_traced_anew_and_the_weights_alone_are_exported(tmp_path: Path) -> None:
    from stopctl.export import read

    x = np.random.default_rng(0).normal(3, 5, size=(16, 2)).astype("f4")

    def build(adapt: bool) -> Any:
        norm, bins = layers.Normalization(), layers.Discretization(num_bins=3, output_mode="one_hot")
        if adapt:
            norm.adapt(x)
            bins.adapt(x)
        else:
            bins.bin_boundaries = [0.0, 1.0]
        model = keras.Sequential([keras.Input((2,)), norm, layers.Dense(1)])
        model.bins = bins
        model.compile(keras.optimizers.SGD(0.01), "mse")
        return model

    old, new = build(True), build(False)
    new.evaluate(x, x[:, :1], verbose=0)
    with Run(tmp_path, model=old, optimizer=old.optimizer, save=Every(epochs=1)) as run:
        for _ in run.epochs(1):
            run.report(val_loss=old.evaluate(x, x[:, :1], verbose=0))
    load(tmp_path, model=new)
    assert new.evaluate(x, x[:, :1], verbose=0) == old.evaluate(x, x[:, :1], verbose=0)
    assert np.array_equal(new.bins(x), old.bins(x))
    weights = read(tmp_path)
    assert [each.name for each in weights.tensors] == [
        "0.mean",
        "1.variance",
        "2.count",
        "3.kernel",
        "4.bias",
    ]
    assert weights.left_out == ()


def test_fit_goes_on_with_constants_that_it_traced_before(tmp_path: Path) -> None:
    """The second fit is of a model that is not adapted, and has trained already."""
    x = np.random.default_rng(0).normal(3, 5, size=(8, 2)).astype("f4")

    def build(adapt: bool) -> Any:
        keras.utils.set_random_seed(1)
        norm = layers.Normalization()
        if adapt:
            norm.adapt(x)
        model = keras.Sequential([keras.Input((2,)), norm, layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.01), "mse")
        return model

    def fit(model: Any, epochs: int, *callbacks: Any) -> Any:
        model.fit(x, x[:, :1], epochs=epochs, verbose=0, shuffle=False, batch_size=8, callbacks=[*callbacks])
        return model

    expected = fit(build(True), 2)
    settings: Any = {"goal": Minimize("loss"), "save": Every(epochs=1), "durability": "process"}
    fit(build(True), 1, FitCallback(tmp_path / "run", **settings))
    again = fit(fit(build(False), 1), 2, FitCallback(tmp_path / "run", restore_best=True, **settings))
    assert np.array_equal(again(x), expected(x))


APPLICATIONS: dict[str, Any] = {
    "EfficientNetB0": {"include_top": False, "pooling": "avg"},
    "MobileNetV3Small": {"include_top": False, "pooling": "avg", "alpha": 0.35, "minimalistic": True},
}


@pytest.mark.parametrize("name", mostly_long(APPLICATIONS, ["MobileNetV3Small"]))
def test_applications(name: str, reloaded: Any) -> None:
    """EfficientNet begins with a Normalization that is adapted by its weights."""
    build = getattr(keras.applications, name)
    old, new = (build(weights=None, input_shape=(32, 32, 3), **APPLICATIONS[name]) for _ in range(2))
    for layer in old.layers:
        if isinstance(layer, layers.Normalization):
            layer.adapt(np.random.default_rng(0).normal(100, 50, (8, 32, 32, 3)))
    TfState(model=new).restore(reloaded(TfState(model=old).capture()))
    x = np.random.default_rng(1).uniform(0, 255, (1, 32, 32, 3)).astype("f4")
    assert np.array_equal(old(x, training=False), new(x, training=False))
