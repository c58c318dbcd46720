"""One small training problem a framework, behind one interface, for the tests that every adapter must pass."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


def batches(epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Three batches of 8 rows; the order and the values are a function of the epoch."""
    rng = np.random.default_rng([7, epoch])
    return [(rng.normal(size=(8, 4)).astype("f4"), rng.integers(0, 3, 8)) for _ in range(3)]


def digest(arrays: Any) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


class Plain:
    """A linear model in NumPy with momentum and dropout noise from NumPy's global generator."""

    name = "plain"
    moved = None  # a dict has no counter of its own, and no learning rate

    def __init__(self, width: int = 3) -> None:
        import stopctl

        np.random.seed(0)
        self.Run = stopctl.Run
        self.state: dict[str, Any] = {
            "weight": np.zeros((4, width), "f4"),
            "momentum": np.zeros((4, width), "f4"),
        }

    def given(self) -> dict[str, Any]:
        return {"state": self.state}

    def train(self, epoch: int) -> None:
        for x, y in batches(epoch):
            x = x * (np.random.random(x.shape) < 0.8)
            logits = x @ self.state["weight"]
            p = np.exp(logits - logits.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(8), y] -= 1
            self.state["momentum"] = (0.9 * self.state["momentum"] + x.T @ p).astype("f4")
            self.state["weight"] = self.state["weight"] - np.float32(0.05) * self.state["momentum"]

    def weights(self) -> str:
        return digest([self.state["weight"]])

    def everything(self) -> str:
        return digest([self.state["weight"], self.state["momentum"], np.random.get_state()[1]])

    def state_of_training(self) -> Any:
        return None  # a dict is taken whole

    def scalar(self, value: float) -> Any:
        return np.float32(value)

    def vector(self) -> Any:
        return np.zeros(1)

    def load(self, directory: Any, which: str) -> Any:
        from stopctl.ports import choose

        info, components = choose(directory, which, only={"weight"})
        from stopctl.ports import leaf_array

        self.state["weight"] = leaf_array(components["weight"])
        return info


class Torch:
    """A dropout MLP with Adam and a smooth schedule (Patience waits for step-wise ones)."""

    name = "torch"
    moved = "optimizer.step()"

    def __init__(self, width: int = 3, *, plateau: bool = False) -> None:
        import torch

        import stopctl_torch

        torch.manual_seed(0)
        self.torch, self.Run = torch, stopctl_torch.Run
        nn = torch.nn
        self.model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, width))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
        self.scheduler = None
        if not plateau:
            self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, gamma=0.9)

    def given(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}

    def rate(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def train(self, epoch: int) -> None:
        self.model.train()
        for x, y in batches(epoch):
            self.optimizer.zero_grad()
            loss = self.torch.nn.functional.cross_entropy(
                self.model(self.torch.from_numpy(x)), self.torch.from_numpy(y)
            )
            loss.backward()
            self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()

    def move(self) -> None:
        self.optimizer.step()

    def weights(self) -> str:
        return digest(tensor.numpy() for tensor in self.model.state_dict().values())

    def everything(self) -> str:
        moments = [t.numpy() for s in self.optimizer.state.values() for t in s.values()]
        tensors = [tensor.numpy() for tensor in self.model.state_dict().values()]
        rng = self.torch.get_rng_state().numpy()
        return digest([*tensors, *moments, rng, np.array([g["lr"] for g in self.optimizer.param_groups])])

    def state_of_training(self) -> Any:
        return len(self.optimizer.state), self.scheduler.last_epoch

    def scalar(self, value: float) -> Any:
        return self.torch.tensor(value, requires_grad=True)

    def vector(self) -> Any:
        return self.torch.zeros(1)

    def load(self, directory: Any, which: str) -> Any:
        import stopctl_torch

        return stopctl_torch.load(directory, model=self.model, which=which)


class TensorFlow:
    """A dropout MLP with Adam and a step-wise schedule."""

    name = "tensorflow"
    moved = "optimizer.apply_gradients()"

    def __init__(self, width: int = 3, *, plateau: bool = False) -> None:
        import keras
        import tensorflow as tf

        import stopctl_tf

        keras.utils.set_random_seed(0)
        self.tf, self.Run = tf, stopctl_tf.Run
        layers = keras.layers
        self.model = keras.Sequential(
            [keras.Input((4,)), layers.Dense(6, activation="relu"), layers.Dropout(0.5), layers.Dense(width)]
        )
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay([6, 12], [0.05, 0.01, 0.005])
        self.optimizer = keras.optimizers.Adam(0.05 if plateau else schedule)
        self.optimizer.build(self.model.trainable_variables)
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def given(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer}

    def rate(self) -> float:
        return float(self.optimizer.learning_rate.numpy())

    def train(self, epoch: int) -> None:
        for x, y in batches(epoch):
            with self.tf.GradientTape() as tape:
                loss = self.loss(y, self.model(x, training=True))
            variables = self.model.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    def move(self) -> None:
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients([(self.tf.zeros_like(v), v) for v in variables])

    def weights(self) -> str:
        return digest(variable.numpy() for variable in self.model.trainable_variables)

    def everything(self) -> str:
        return digest(variable.numpy() for variable in [*self.model.variables, *self.optimizer.variables])

    def state_of_training(self) -> Any:
        return digest(variable.numpy() for variable in self.optimizer.variables)

    def scalar(self, value: float) -> Any:
        return self.tf.constant(value)

    def vector(self) -> Any:
        return self.tf.zeros(1)

    def load(self, directory: Any, which: str) -> Any:
        import stopctl_tf

        return stopctl_tf.load(directory, model=self.model, which=which)


CASES = {case.name: case for case in (Plain, Torch, TensorFlow)}
