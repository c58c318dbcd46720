"""The exported file: what is in it, and that it appears whole or not at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import stopctl
from stopctl import SettingError
from stopctl.export import export
from support.given import keras_like, leaf, saved, torch_like

RANDOM = np.random.default_rng(0).normal(size=(6, 40)).astype("f4")


@pytest.fixture
def run(tmp_path):
    shared = leaf(RANDOM, key="tied")
    tree = torch_like(
        first__weight=shared,
        first__bias=leaf(np.linspace(-1, 1, 6)),
        norm__num_batches_tracked=leaf(3, "i8"),
        wave=leaf(np.ones((3, 4, 2)), note="complex"),
        last__weight=shared,
    )
    return saved(tmp_path / "run", {"model": tree, "rng.python": {"state": 1}})


def test_as_saved_it_is_what_the_safetensors_library_reads(run, tmp_path):
    done = export(run, tmp_path / "m.safetensors")
    found = load_file(done.path)
    assert found.keys() == {"first.weight", "first.bias", "norm.num_batches_tracked", "wave"}
    np.testing.assert_array_equal(found["first.weight"], RANDOM)
    assert found["norm.num_batches_tracked"].dtype == np.int64
    assert [tensor.largest for tensor in done.tensors] == [0.0] * 5
    assert done.bytes == done.path.stat().st_size
    assert done.bytes_before == RANDOM.nbytes + 24 + 8 + 96


@pytest.mark.parametrize(
    ("dtype", "share"), [("float32", 1.0), ("float16", 0.5), ("bfloat16", 0.5), ("int8", 0.25)]
)
def test_every_dtype_comes_back_as_floats_with_the_errors_that_were_told(run, tmp_path, dtype, share):
    done = export(run, tmp_path / "m.safetensors", dtype=dtype)
    arrays = stopctl.load_exported(done.path)
    assert list(arrays) == [tensor.name for tensor in done.tensors]
    assert [array.dtype.name for array in arrays.values()] == [
        "float32", "float32", "int64", "complex64", "float32",
    ]  # fmt: skip
    assert arrays["first.weight"] is arrays["last.weight"]
    told = done.tensors[0]
    errors = np.abs(arrays["first.weight"].astype("f8") - RANDOM)
    assert (told.largest, told.mean) == (errors.max(), errors.mean())
    assert told.bytes_after == share * told.bytes_before
    assert (told.largest > 0) == (dtype != "float32")
    tied = done.tensors[-1]
    assert (tied.same_as, tied.bytes_before, tied.bytes_after) == ("first.weight", 0, 0)


def test_int8_scales_are_in_the_metadata_for_everybody(run, tmp_path):
    done = export(run, tmp_path / "m.safetensors", dtype="int8")
    with safe_open(done.path, "np") as file:
        metadata = file.metadata()
        steps = file.get_tensor("first.weight")
    told = {entry["name"]: entry for entry in json.loads(metadata["stopctl"])["tensors"]}
    assert metadata["format"] == "pt"
    assert told["first.weight"]["axis"] == 0
    scales = np.array(told["first.weight"]["scales"], "f4")
    np.testing.assert_array_equal(steps * scales[:, None], stopctl.load_exported(done.path)["first.weight"])
    assert "scales" not in told["first.bias"]
    assert [tensor.after for tensor in done.tensors] == ["I8", "F32", "I64", "I8", "I8"]


def test_the_metadata_says_where_the_weights_are_from(tmp_path):
    run = saved(tmp_path / "run", {"model": keras_like(("net/dense/kernel", leaf(RANDOM)))}, epochs=2)
    done = export(run, tmp_path / "m.safetensors", dtype="float16")
    with safe_open(done.path, "np") as file:
        metadata = file.metadata()
    told = json.loads(metadata["stopctl"])
    assert metadata["format"] == "tf"
    assert (told["checkpoint"], told["epoch"], told["metric"], told["value"]) == (
        "epoch-0002-step-000000000-w0001", 2, "val_loss", 0.5,
    )  # fmt: skip
    assert told["tensors"] == [{"name": "0.kernel", "path": "net/dense/kernel"}]


def test_nothing_is_replaced_unless_asked(run, tmp_path):
    target = tmp_path / "m.safetensors"
    target.write_text("mine")
    with pytest.raises(SettingError, match="is there already"):
        export(run, target)
    assert target.read_text() == "mine"
    export(run, target, force=True)
    assert "first.weight" in stopctl.load_exported(target)
    with pytest.raises(SettingError, match="is a directory"):
        export(run, tmp_path, force=True)
    with pytest.raises(match="is no directory: make it first"):
        export(run, tmp_path / "there" / "m.safetensors")


def test_an_unknown_dtype_lists_the_known(run, tmp_path):
    with pytest.raises(SettingError, match="'fp16' is none of float32, float16, bfloat16, int8"):
        export(run, tmp_path / "m", dtype="fp16")


def test_a_tensor_that_does_not_fit_leaves_no_file(tmp_path):
    run = saved(tmp_path / "run", {"model": torch_like(w=leaf([1e6]))})
    with pytest.raises(SettingError, match=r"w: 1 of 1 values are beyond the range of float16"):
        export(run, tmp_path / "m", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    export(run, tmp_path / "m", dtype="float16", clip=True)
    assert stopctl.load_exported(tmp_path / "m")["w"].tolist() == [65504.0]
