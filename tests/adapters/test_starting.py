"""start_from_run in both frameworks: the best weights of another run, everything else new."""

from __future__ import annotations

import json

import numpy as np
import pytest


def torch_parts():
    import torch

    from stopctl_torch import Run

    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)

    def step():
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler.step()

    def weights():
        return model.weight.detach().numpy().copy()

    def fresh():
        return not optimizer.state and scheduler.last_epoch == 0

    return Run, {"model": model, "optimizer": optimizer, "scheduler": scheduler}, step, weights, fresh


def tf_parts():
    import keras
    import tensorflow as tf

    from stopctl_tf import Run

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.Adam()

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(tf.ones((1, 2))))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )

    def weights():
        return model.get_weights()[0]

    def fresh():
        return int(optimizer.iterations.numpy()) == 0

    return Run, {"model": model, "optimizer": optimizer}, step, weights, fresh


@pytest.mark.parametrize("parts", [torch_parts, tf_parts])
def test_a_new_run_starts_from_the_best_weights_and_trains(tmp_path, parts):
    kind, given, step, weights, fresh = parts()
    with kind(tmp_path / "a", **given) as run:
        for epoch in run.epochs(3):
            step()
            if epoch == 2:
                best = weights()
            run.report(val_loss=float(epoch != 2))
    assert not np.array_equal(weights(), best)
    assert not fresh()
    kind, given, step, weights, fresh = parts()
    assert not np.array_equal(weights(), best)
    with kind(tmp_path / "b", **given, start_from_run=tmp_path / "a") as run:
        assert np.array_equal(weights(), best)
        assert fresh()
        assert (run.progress.epoch, run.resumed) == (0, None)
        for _ in run.epochs(2):
            step()
            run.report(val_loss=0.5)
        after = weights()
    told = {"directory": str(tmp_path / "a"), "checkpoint": "epoch-0002-step-000000000-w0001"}
    assert json.loads((tmp_path / "b" / "run.json").read_text())["parent"] == told
    kind, given, step, weights, fresh = parts()
    with kind(tmp_path / "b", **given, start_from_run=tmp_path / "a") as run:
        assert (run.resumed.epoch, fresh()) == (2, False)
        assert np.array_equal(weights(), after)
