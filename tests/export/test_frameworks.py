"""Real models of both frameworks, exported without them and loaded back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from stopctl import load_exported
from stopctl.export import export, read


@pytest.fixture
def batch():
    return np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype("f4")


def test_a_torch_module_loads_its_export(tmp_path, batch):
    import torch
    from safetensors.torch import load_file

    from stopctl_torch import Run

    def net():
        return torch.nn.Sequential(
            torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 3)
        )

    torch.manual_seed(0)
    model, fresh = net().to(memory_format=torch.channels_last), net()
    x = torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())
    model(x)
    with Run(tmp_path / "run", model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1)) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    done = export(tmp_path / "run", tmp_path / "m.safetensors")
    assert list(model.state_dict()) == [tensor.name for tensor in done.tensors]
    fresh.load_state_dict(load_file(done.path))
    for one, other in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    # in another order of memory the same sums may be added up in another order
    torch.testing.assert_close(fresh.eval()(x), model.eval()(x))
    export(tmp_path / "run", done.path, dtype="int8", force=True)
    fresh.load_state_dict({k: torch.from_numpy(v) for k, v in load_exported(done.path).items()})
    assert fresh[1].num_batches_tracked == 1
    torch.testing.assert_close(fresh(x), model(x), atol=0.05, rtol=0)


def test_a_keras_model_takes_its_export_in_order(tmp_path, batch):
    import keras

    from stopctl_tf import Run

    def net():
        return keras.Sequential(
            [
                keras.Input((8, 8, 2)), keras.layers.Normalization(), keras.layers.Conv2D(4, 3),
                keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )  # fmt: skip

    keras.utils.set_random_seed(0)
    model, fresh = net(), net()
    model.layers[0].adapt(batch)
    with Run(tmp_path / "run", model=model) as run:
        for _ in run.epochs(1):
            run.report(val_loss=1.0)
    done = export(tmp_path / "run", tmp_path / "m.safetensors", dtype="float16")
    assert done.left_out == ("9.seed_generator_state",)
    assert [tensor.path.split("/")[-1] for tensor in done.tensors] == [
        variable.name for variable in model.variables if variable.name != "seed_generator_state"
    ]
    arrays = load_exported(done.path)
    into = [variable for variable in fresh.variables if variable.name != "seed_generator_state"]
    for variable, array in zip(into, arrays.values(), strict=True):
        variable.assign(array)
    fresh.layers[0].finalize_state()  # Normalization computes with copies of its variables
    np.testing.assert_allclose(fresh.predict(batch, verbose=0), model.predict(batch, verbose=0), atol=0.01)


@pytest.mark.skipif("STOPCTL_MNIST" not in os.environ, reason="STOPCTL_MNIST names no folder with MNIST")
def test_mnist_is_half_and_a_quarter_the_size_and_as_right(tmp_path):
    """Two epochs of the demo's MLP: enough for 95 %; judged by NumPy."""
    from stopctl.demo import problem, torch_loop
    from stopctl.demo.data import load
    from stopctl_torch import Run

    data = load(0)
    model, optimizer = torch_loop.build(problem.initial_weights(0))
    with Run(tmp_path / "run", model=model, optimizer=optimizer, durability="process") as run:
        for epoch in run.epochs(2):
            order = problem.order(0, epoch, len(data.train_y))
            torch_loop.train_one_epoch(model, optimizer, data.train_x, data.train_y, order, lambda: None)
            run.report(val_loss=torch_loop.evaluate(model, data.valid_x, data.valid_y)[0])

    def accuracy(arrays):
        kernel, bias, last_kernel, last_bias = arrays.values()
        hidden = np.maximum(data.test_x @ kernel.T + bias, 0)
        return float(np.mean(np.argmax(hidden @ last_kernel.T + last_bias, 1) == data.test_y))

    exact = accuracy(read(tmp_path / "run").arrays())
    assert exact > 0.93
    for dtype, share, points in (("float16", 0.505, 0.1), ("int8", 0.27, 0.5)):
        done = export(tmp_path / "run", Path(tmp_path / dtype), dtype=dtype)
        assert done.bytes <= share * done.bytes_before
        assert abs(accuracy(load_exported(done.path)) - exact) * 100 <= points
