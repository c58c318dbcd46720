"""What Keras layers compute with beside their variables: told by the layer's own contract, and made anew.

A layer may compute with more than the variables that it lists: `keras.layers.Normalization` with constants
made of them, a lookup with its vocabulary, Discretization with its bins, a layer of the user's with whatever
it likes. So after variables are assigned, each layer is asked in the terms that Keras has for it, sublayers
first: ``load_own_variables(store)`` and ``load_assets(folder)`` of classes that write these methods
themselves, then ``finalize_state()``. Vocabularies go through ``get_vocabulary()`` and
``set_vocabulary()``: the file that ``save_assets()`` writes cannot hold a token with a line break. Functions
that ``fit``, ``evaluate`` and ``predict`` have traced hold the old constants, and are made anew, too.

What an own layer keeps in NumPy arrays, tensors and lookup tables, one with ``adapt()`` also in plain values,
and tells by none of these, is compared by what it amounts to: a sum of its elements, or a hash.

This needs Keras 3, on any backend, and NumPy; of TensorFlow nothing. The caller says which layers there are,
assigns their variables, and calls `Layers.put` when all variables of all components are there.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stopctl import MismatchError
from stopctl.ports import Leaf, Tree, array_leaf, leaf_array
from stopctl_keras.arrays import array_of

LAYERS = "layers"
"""The key in a component's tree; absent where no layer has anything to tell."""

STATE, HIDDEN = "state", "hidden"

MOST = 1 << 20
"""Elements of an array of floats that are summed."""

CLOSE = 1e-4
"""The share by which sums of floats may differ: other processors round otherwise."""

CONTRACT = ("save_own_variables", "load_own_variables", "save_assets", "load_assets")
PLAIN = (bool, int, float, str, bytes)


class Layers:
    """The layers of one component, by what they tell beside variables.

    Args:
        roots: Keras layers and models as they are now, asked whenever they are needed.
    """

    def __init__(self, roots: Callable[[], Iterable[Any]]) -> None:
        self._roots = roots
        self._vocabularies: dict[int, tuple[Any, dict[str, Tree]]] = {}  # by layer: table, what is in it
        self._looked, self._hidden = False, self._look()
        self._moves: list[str] = []

    def capture(self, path: str) -> dict[str, Tree]:
        """What stands beside the variables: ``{"layers": ...}``, or nothing.

        Raises:
            TreeError: a layer tells what a checkpoint cannot hold, with its path.
        """
        told = {key: self._tell(layer, f"{path}/{key}") for key, layer in self._tellers()}
        if self._hidden and not self._looked:  # what moves while training is nothing that adapt() has left
            now, self._looked = self._look(), True
            self._moves = [key for key, worth in self._hidden.items() if key in now and worth != now[key]]
            self._hidden = {key: worth for key, worth in self._hidden.items() if worth == now.get(key)}
        return {LAYERS: {STATE: told, HIDDEN: dict(self._hidden)}} if told or self._hidden else {}

    def hides(self, label: str) -> list[str]:
        """Lines that name what cannot be put back, ``"Table.0.words"``, if there is any."""
        write = "save_own_variables(store) and load_own_variables(store) of the layer save it"
        told = []
        if self._hidden:
            told.append(
                f"{label}: {', '.join(self._hidden)}: held beside the variables, and told by no method of "
                f"the layer: compared when this run is resumed, not restored; {write}"
            )
        if self._moves:
            told.append(
                f"{label}: {', '.join(self._moves)}: moves while training, and is not saved; if it is more "
                f"than what the last call has left there, {write}"
            )
        return told

    def stands(self, saved: Mapping[str, Tree], path: str) -> list[str]:
        """A line that names layers with state of their own where nothing was saved of it."""
        there = saved[LAYERS][STATE] if LAYERS in saved else {}
        names = [key for key, each in self._tellers() if not there.get(key) and self._tell(each, key)]
        told = (
            f"{path}: {', '.join(names)}: nothing of this was saved, as by older versions of stopctl, or "
            "before adapt(): what the script gives stands, so give what the model was trained with"
        )
        return [told] if names else []

    def covered(self) -> Iterator[Any]:
        """What looks like a variable that nobody saves, though its layer tells its value."""
        for _, layer in self._tellers():
            yield from vars(layer).values() if _is_lookup(layer) else _stored(layer).values()

    def check(self, saved: Mapping[str, Tree], path: str) -> list[str]:
        """State that no given layer could take, and vocabularies that the script has given otherwise."""
        if LAYERS not in saved:
            return []
        parts = saved[LAYERS] if isinstance(saved[LAYERS], dict) else {}
        if not all(isinstance(parts.get(part), dict) for part in (STATE, HIDDEN)):
            return [f"{path}/{LAYERS}: saved is no table of layers"]
        there, given = parts[STATE], dict(self._tellers())
        lines = [f"{path}/{key}: saved, not given" for key in there if there[key] and key not in given]
        for key, layer in given.items():
            if _is_lookup(layer) and layer.input_vocabulary is not None and there.get(key):
                was, now = _words(there[key]), _words(self._tell(layer, path))
                if was != now:
                    lines.append(
                        f"{path}/{key}: saved with a vocabulary of {len(was)} tokens, given another, of "
                        f"{len(now)}, by vocabulary=: give it as it was, or leave it out, and it is put back"
                    )
        return lines

    def put(self, saved: Mapping[str, Tree], assign: Callable[[], None]) -> None:
        """Put back what was saved, and have made anew what is made of variables.

        Args:
            saved: a component.
            assign: assigns its variables once more, as a layer's own loading may round or merge them.

        Raises:
            MismatchError: a layer's own loading has failed.
        """
        there = saved[LAYERS][STATE] if LAYERS in saved else {}
        anew = own = False
        for key, layer in reversed(list(self._tellers())):
            state = there.get(key, {})
            if _has_own(layer) or (state and not _same(state, self._tell(layer, key))):
                anew, own = True, own or _has_own(layer)
                try:
                    _take(layer, state)
                except Exception as error:
                    raise MismatchError(
                        f"{key} of the model does not take what was saved: {error!r}"
                    ) from error
        if own:
            assign()
        layers = self._flat()
        for layer in reversed(layers):
            if layer.variables and callable(finalize := getattr(layer, "finalize_state", None)):
                finalize()
                anew = True
            if isinstance(layer, keras.utils.FeatureSpace):
                layer.build_from_config({})  # which is how it hears that it need not be adapted
        for layer in layers if anew else ():
            _forget_traces(layer)
        self._looked, self._hidden = False, self._look()

    def differing(self, saved: Mapping[str, Tree], path: str) -> list[str]:
        """What the layers hide and is not as it was, asked once all is put."""
        hidden = saved[LAYERS][HIDDEN] if LAYERS in saved else {}
        tell = {key for key, _ in self._tellers()}  # by methods written since: what the script gives stands
        return [
            f"{path}/{key}: not what it was when this was saved, and no method of the layer tells it: set it "
            "as it was, or write save_own_variables(store) and load_own_variables(store), and it is saved, "
            "or name it in get_config(), and it is the script's"
            for key, worth in hidden.items()
            if key.rpartition(".")[0] not in tell and not _close(worth, self._hidden.get(key))
        ]

    def _flat(self) -> list[Any]:
        """Every layer once, parents before what is in them."""
        found = {id(layer): layer for root in self._roots() for layer in root._flatten_layers()}
        for model in [each for each in found.values() if isinstance(each, keras.Sequential)]:
            beside = [
                each for each in vars(model).values() if isinstance(each, keras.Layer)
            ]  # not listed there
            found |= {id(each): each for layer in beside for each in layer._flatten_layers()}
        return list(found.values())

    def _tellers(self) -> Iterator[tuple[str, Any]]:
        """Those that tell more than variables, ``"StringLookup.0"``."""
        return ((key, layer) for key, layer in self._numbered() if _tells(layer))

    def _numbered(self) -> Iterator[tuple[str, Any]]:
        """Every layer by its class and its number among those: others may come and go between them."""
        counts: Counter[str] = Counter()
        for layer in self._flat():
            name = type(layer).__name__
            yield f"{name}.{counts[name]}", layer
            counts[name] += 1

    def _look(self) -> dict[str, Tree]:
        return {
            f"{key}.{name}": worth
            for key, layer in self._numbered()
            if not (_of_keras(type(layer)) or _tells(layer))
            for name, worth in _hidden(layer).items()
        }

    def _tell(self, layer: Any, path: str) -> dict[str, Tree]:
        """What it is now; a vocabulary is read once for each table."""
        if not _is_lookup(layer):
            return _own(layer, path) if _has_own(layer) else _bins(layer, path)
        table = layer.lookup_table
        known = self._vocabularies.get(id(layer))
        if known is None or known[0] is not table:
            known = self._vocabularies[id(layer)] = (table, _vocabulary(layer, path))
        return known[1]


def _of_keras(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "keras"


def _is_lookup(layer: Any) -> bool:
    """StringLookup and IntegerLookup; TextVectorization has one inside."""
    return hasattr(layer, "get_vocabulary") and hasattr(layer, "lookup_table")


def _has_own(layer: Any) -> bool:
    """Whether a class that is not Keras' writes a method by which layers are saved or loaded."""
    homes = [
        next((cls for cls in type(layer).__mro__ if name in vars(cls)), keras.Layer) for name in CONTRACT
    ]
    return not _is_lookup(layer) and not all(map(_of_keras, homes))


def _tells(layer: Any) -> bool:
    return _is_lookup(layer) or isinstance(layer, keras.layers.Discretization) or _has_own(layer)


def _vocabulary(layer: Any, path: str) -> dict[str, Tree]:
    """The tokens with those for masks and unknown words, and their weights; nothing before ``adapt()``."""
    if not layer.get_vocabulary(include_special_tokens=False):
        return {}
    tokens = [t if t is None else str(t) if isinstance(t, str) else int(t) for t in layer.get_vocabulary()]
    state: dict[str, Tree] = {"vocabulary": _bytes(json.dumps(tokens).encode(), path)}
    if layer.output_mode == "tf_idf":
        state["idf_weights"] = array_leaf(np.asarray(layer.idf_weights_const)[: len(tokens)], path)
    return state


def _words(state: Mapping[str, Tree]) -> list[Any]:
    words: list[Any] = json.loads(bytes(state["vocabulary"].data)) if state else []
    return words


def _bins(layer: Any, path: str) -> dict[str, Tree]:
    if layer.bin_boundaries is None:
        return {}
    return {"bins": array_leaf(np.asarray(layer.bin_boundaries, np.float64), path)}


def _stored(layer: Any) -> dict[str, Any]:
    """What ``save_own_variables()`` tells that is no variable of the layer's."""
    store: dict[str, Any] = {}
    with suppress(Exception):  # not built, not adapted: it has nothing to tell yet
        layer.save_own_variables(store)
    listed = {id(each) for variable in layer.variables for each in (variable, variable.value)}
    return {name: value for name, value in store.items() if value is not None and id(value) not in listed}


def _own(layer: Any, path: str) -> dict[str, Tree]:
    """What the methods of a user's class tell: arrays and plain values, and files."""
    store = {
        name: value if type(value) in PLAIN else _encoded(value, f"{path}/{name}")
        for name, value in _stored(layer).items()
    }
    assets: dict[str, Tree] = {}
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            files = sorted(each for each in Path(folder).rglob("*") if each.is_file())
            assets = {each.relative_to(folder).as_posix(): _bytes(each.read_bytes(), path) for each in files}
    return {name: found for name, found in (("store", store), ("assets", assets)) if found}


def _encoded(value: Any, path: str) -> Tree:
    array = _numpy(value)
    return {"strings": array.tolist()} if array.dtype.kind in "USO" else array_leaf(array, path)


def _decoded(saved: Tree) -> Any:
    if isinstance(saved, dict):
        return np.array(saved["strings"])
    return leaf_array(saved) if isinstance(saved, Leaf) else saved


def _numpy(value: Any) -> Any:
    value = value.read_value() if hasattr(value, "read_value") else value  # of a variable that is not Keras'
    if isinstance(value, keras.Variable):
        return array_of(value)
    return np.asarray(keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value)


def _bytes(data: bytes, path: str) -> Leaf:
    return array_leaf(np.frombuffer(data, np.uint8), path)


def _same(saved: Mapping[str, Leaf], given: Mapping[str, Leaf]) -> bool:
    """Whether two vocabularies, or two lists of bins, are the same."""
    return saved.keys() == given.keys() and all(
        bytes(leaf.data) == bytes(given[name].data) for name, leaf in saved.items()
    )


def _take(layer: Any, state: Mapping[str, Tree]) -> None:
    if _is_lookup(layer):
        weights = {"idf_weights": leaf_array(state["idf_weights"])} if "idf_weights" in state else {}
        layer.set_vocabulary(_words(state), **weights)
    elif not _has_own(layer):
        layer.bin_boundaries = leaf_array(state["bins"]).tolist()
    else:
        _take_own(layer, state)


def _take_own(layer: Any, state: Mapping[str, Tree]) -> None:
    """The variables are there already: they go with the rest through the layer's own loading."""
    store: dict[str, Any] = {}
    try:
        layer.save_own_variables(store)
    except Exception:  # of what it has not been told yet
        store.clear()
        keras.Layer.save_own_variables(layer, store)
    values = {name: value if type(value) in PLAIN else _numpy(value) for name, value in store.items()}
    layer.load_own_variables(
        values | {name: _decoded(value) for name, value in state.get("store", {}).items()}
    )
    if state.get("assets"):
        with tempfile.TemporaryDirectory() as folder:
            for name, leaf in state["assets"].items():
                place = Path(folder, name)
                if not place.resolve().is_relative_to(Path(folder).resolve()):
                    raise ValueError(f"the name of a saved file leads out of its folder: {name!r}")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(bytes(leaf.data))
            layer.load_assets(folder)


def _forget_traces(layer: Any) -> None:
    """Functions that were traced with the old constants; made anew at once, as fit has asked for them."""
    for name in ("train", "test", "predict"):
        if isinstance(layer, keras.Model) and getattr(layer, f"{name}_function", None) is not None:
            getattr(layer, f"make_{name}_function")(force=True)


@cache
def _attributes() -> frozenset[str]:
    """Those that every layer has."""
    return frozenset(vars(keras.Layer(name="layer")))


def _hidden(layer: Any) -> dict[str, Tree]:
    """What an own layer holds in its attributes, and neither Keras nor its configuration knows of."""
    adapted = hasattr(layer, "adapt") and not isinstance(layer, keras.Model)
    finalized = callable(getattr(layer, "finalize_state", None)) and bool(layer.variables)
    found = {
        name: worth
        for name, value in vars(layer).items()
        if name not in _attributes() and not name.startswith("_self_")
        if not (finalized and keras.ops.is_tensor(value))  # which is made anew
        if (worth := _worth(value, plain=adapted)) is not None
    }
    if found:
        with suppress(Exception):  # a class without one of its own may refuse
            for name in layer.get_config():
                found.pop(name, None)
    return found


def _worth(value: Any, *, plain: bool) -> Tree:
    """What stands for a value: its kind, and sums of floats or a hash; None where it is no state.

    Args:
        value: of any type.
        plain: whether numbers, strings and containers of them are state.
    """
    with suppress(Exception):  # symbolic tensors, tables without values, objects of all kinds
        if isinstance(value, np.ndarray) or keras.ops.is_tensor(value):
            return None if hasattr(value, "assign") else _summary(_numpy(value))
        if hasattr(value, "export") and hasattr(value, "lookup"):
            keys, values = map(np.asarray, value.export())
            order = np.argsort(keys, axis=0, kind="stable")
            return [_summary(keys[order]), _summary(values[order])]
        if plain and value is not None and _is_plain(value):
            text = json.dumps(value, sort_keys=True, default=lambda other: sorted(map(repr, other)))
            return [type(value).__name__, hashlib.sha256(text.encode()).hexdigest()]
    return None


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, PLAIN)


def _summary(array: Any) -> list[Tree]:
    """``["float32 (2, 3)", sum of sizes, another sum]``; of what is no float, a hash."""
    kind = f"{array.dtype.name} {array.shape}"
    if array.dtype.kind in "biuUSO":
        data = (
            repr(array.tolist()).encode()
            if array.dtype.kind in "USO"
            else np.ascontiguousarray(array).tobytes()
        )
        return [kind, hashlib.sha256(data).hexdigest()]
    few = array.reshape(-1)[:: max(1, array.size // MOST)]
    wide = few.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    flat = np.nan_to_num(np.concatenate([wide.real, wide.imag]), posinf=1.0, neginf=-1.0)
    return [kind, float(np.abs(flat).sum()), float(flat @ np.cos(np.arange(flat.size)))]


def _close(saved: Tree, given: Tree) -> bool:
    """Whether they stand for the same, as far as other processors round otherwise."""
    if isinstance(saved, list) and isinstance(given, list) and len(saved) == len(given):
        if len(saved) == 3 and saved[0] == given[0]:
            return all(
                abs(one - other) <= CLOSE * saved[1] for one, other in zip(saved[1:], given[1:], strict=True)
            )
        return all(map(_close, saved, given))
    return bool(saved == given)
