"""Which tensors are exported, and under which names."""

from __future__ import annotations

import numpy as np
import pytest

from stopctl import DamagedError, NotARunError, Run, SettingError
from stopctl.export import read
from support.given import keras_like, leaf, saved, torch_like


def names(weights):
    return [weight.name for weight in weights.tensors]


def test_a_torch_module_keeps_the_names_of_its_state_dict_and_its_counters(tmp_path):
    tree = torch_like(
        conv__weight=leaf(np.ones((4, 3, 2, 2))),
        conv__bias=leaf(np.ones(4)),
        bn__num_batches_tracked=leaf(7, "i8"),
    )
    weights = read(saved(tmp_path, {"model": tree, "optimizer": torch_like(m=leaf([1.0]))}))
    assert names(weights) == ["conv.weight", "conv.bias", "bn.num_batches_tracked"]
    assert [weight.channels for weight in weights.tensors] == [0, None, None]
    assert (weights.framework, weights.left_out, weights.metric) == ("torch", (), "val_loss")
    assert weights.checkpoint.value == 1.0


def test_keras_variables_are_numbered_and_say_their_paths(tmp_path):
    tree = keras_like(
        ("net/dense/kernel", leaf(np.ones((5, 4)))),
        ("net/dense/bias", leaf(np.ones(4))),
        ("seed_generator_1/seed_generator_state", leaf([1, 2], "i8")),
        ("net/norm/count", leaf(3, "i8")),
        ("net/dense/kernel", leaf(np.ones((4, 2)))),  # two layers of one name
    )
    weights = read(saved(tmp_path, {"model": tree}))
    assert names(weights) == ["0.kernel", "1.bias", "3.count", "4.kernel"]
    assert [weight.path for weight in weights.tensors][::3] == ["net/dense/kernel", "net/dense/kernel"]
    assert [weight.channels for weight in weights.tensors] == [1, None, None, 1]
    assert (weights.framework, weights.left_out) == ("tensorflow", ("2.seed_generator_state",))


def test_of_copies_on_several_devices_the_first_is_exported(tmp_path):
    tree = keras_like(("net/norm/moving_mean", leaf(np.ones(4))))
    tree["replicas"] = {0: [leaf(np.ones(4)), leaf(np.zeros(4))]}
    weights = read(saved(tmp_path, {"model": tree}))
    assert names(weights) == ["0.moving_mean"]
    assert weights.arrays()["0.moving_mean"].tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("path", "shape", "axis"),
    [
        ("conv/kernel", (3, 3, 8, 16), 3),
        ("depthwise/kernel", (3, 3, 8, 1), 2),
        ("head/kernel", (8, 1), 1),
        ("words/embeddings", (50, 8), 0),
    ],
)
def test_the_axis_of_the_outputs_in_keras(tmp_path, path, shape, axis):
    weights = read(saved(tmp_path, {"model": keras_like((path, leaf(np.ones(shape))))}))
    assert weights.tensors[0].channels == axis


def test_several_models_keep_their_names(tmp_path):
    components = {name: torch_like(weight=leaf(np.ones((2, 2)))) for name in ("model.encoder", "model.head")}
    weights = read(saved(tmp_path, components))
    assert names(weights) == ["encoder.weight", "head.weight"]
    assert names(read(tmp_path, only=["model.head"])) == ["head.weight"]


def test_tied_weights_are_said(tmp_path):
    shared = leaf(np.ones((3, 2)), key="one")
    weights = read(saved(tmp_path, {"model": torch_like(embed__weight=shared, head__weight=shared)}))
    assert [weight.same_as for weight in weights.tensors] == [None, "embed.weight"]
    arrays = weights.arrays()
    assert arrays["embed.weight"] is arrays["head.weight"]


def test_extra_state_is_no_weight(tmp_path):
    tree = torch_like(weight=leaf([1.0]), _extra_state={"scale": leaf([1.0])}, b___extra_state=None)
    weights = read(saved(tmp_path, {"model": tree}))
    assert names(weights) == ["weight"]
    assert weights.left_out == ("_extra_state/scale", "b._extra_state")


def test_a_dict_is_walked_and_what_is_no_array_is_left_out(tmp_path):
    state = {
        "params": {"dense": {"kernel": np.ones((3, 2), "f4"), "bias": np.zeros(2)}, "layers": [np.ones(1)]},
        "scale": np.float32(2.0),
        "epoch": 3,
        "history": [1.0] * 100,
    }
    with Run(tmp_path, state=state, stop=None) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    weights = read(tmp_path)
    assert names(weights) == ["params/dense/kernel", "params/dense/bias", "params/layers/0", "scale"]
    assert weights.left_out == ("epoch", "history")
    assert weights.framework == ""
    assert names(read(tmp_path, only=["scale"])) == ["scale"]
    with pytest.raises(SettingError, match="holds no array in epoch"):
        read(tmp_path, only=["epoch"])


def test_arrays_are_float32_and_integers_as_they_are(tmp_path):
    tree = torch_like(
        a=leaf([0.1], "f8"), b=leaf([1, 2], "i8"), c=leaf([[1.0, 2.0]], note="complex"), d=leaf([], "f2")
    )
    arrays = read(saved(tmp_path, {"model": tree})).arrays()
    assert [array.dtype.name for array in arrays.values()] == ["float32", "int64", "complex64", "float32"]
    assert arrays["c"].tolist() == [1 + 2j]
    assert all(array.flags.owndata or array.base.flags.owndata for array in arrays.values())


@pytest.mark.parametrize(
    ("which", "epoch"), [("best", 3), ("latest", 3), ("epoch-0001-step-000000000-w0001", 1)]
)
def test_which(tmp_path, which, epoch):
    saved(tmp_path, {"model": torch_like(w=leaf([1.0]))}, epochs=3)
    assert read(tmp_path, which).checkpoint.epoch == epoch


def test_what_is_not_there_is_named(tmp_path):
    saved(tmp_path / "run", {"model": torch_like(w=leaf([1.0]))})
    with pytest.raises(NotARunError, match="is no run"):
        read(tmp_path)
    with pytest.raises(SettingError, match="no checkpoint for which='first'"):
        read(tmp_path / "run", "first")
    with pytest.raises(SettingError, match=r"has no modle; it has model"):
        read(tmp_path / "run", only=["modle"])


def test_a_damaged_checkpoint_is_not_exported(tmp_path):
    saved(tmp_path, {"model": torch_like(w=leaf([1.0]))})
    (path,) = tmp_path.glob("checkpoints/*/state.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="SHA-256"):
        read(tmp_path)


def test_two_tensors_of_one_name_are_refused(tmp_path):
    components = {"model.a": torch_like(b__w=leaf([1.0])), "model.a.b": torch_like(w=leaf([1.0]))}
    with pytest.raises(SettingError, match=r"'a.b.w': choose a component"):
        read(saved(tmp_path, components))
