"""Every Python block of README and docs runs, in order, file by file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parent.parent
FILES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]


def losses() -> Any:
    """A validation loss that falls and then stays."""
    values = iter([0.5, 0.4, 0.3, 0.25] + [0.25] * 100)
    return lambda *_: next(values)


def any_loop() -> dict[str, Any]:
    return {"train_one_epoch": lambda: None, "validate": losses()}


def torch_loop() -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    model, fresh = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())

    def train_one_epoch(*_: Any) -> None:
        optimizer.zero_grad()
        model(torch.ones(4, 3)).square().mean().backward()
        optimizer.step()

    return {
        "model": model,
        "fresh_model": fresh,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 10),
        "train_one_epoch": train_one_epoch,
        "train_step": train_one_epoch,
        "batches": lambda: range(3),
        "validate": losses(),
    }


def torch_batches() -> dict[str, Any]:
    import torch

    data = torch.utils.data.TensorDataset(torch.ones(8, 3))
    return {**torch_loop(), "loader": torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)}


def keras_fit() -> dict[str, Any]:
    import shutil

    import keras

    shutil.rmtree("runs", ignore_errors=True)  # the block before has used the same directory
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse")
    x, y = np.ones((8, 3), "f4"), np.ones((8, 1), "f4")
    return {"model": model, "x": x, "y": y, "valid": (x, y)}


def no_framework() -> dict[str, Any]:
    step = lambda params, opt: (params + 1.0, opt + 1)  # noqa: E731
    return {"params": np.zeros(3), "opt_state": np.zeros(3), "train": step, "validate": losses()}


def own_files() -> dict[str, Any]:
    from itertools import count

    steps, validate, saved = count(10, 10), losses(), []
    return {
        "train_epoch": lambda: (next(steps), validate()),
        "clock": time.monotonic,
        "path": "weights",
        "weights": None,
        "my_save": lambda *parts: saved.append(parts),
    }


class Grid:
    def __init__(self) -> None:
        self.grid, self.steps = np.zeros((2, 2)), 0

    def advance(self) -> None:
        self.grid += 1
        self.steps += 1

    def error(self) -> float:
        return 1.0 / self.steps


class GridLoader:
    def __init__(self) -> None:
        self.rows, self.count = list(range(7)), 0

    def next_seed(self) -> int:
        self.count += 1
        return self.count

    def iterate(self, seed: int) -> Any:
        return iter(np.random.default_rng(seed).permutation(self.rows).tolist())


SETUPS: dict[str, list[Any]] = {
    "README.md": [any_loop, torch_loop, keras_fit],
    "docs/tutorial.md": [dict, no_framework, torch_loop, no_framework, torch_batches, own_files],
    "docs/adapters.md": [lambda: {"model": Grid()}, lambda: {"loader": GridLoader()}],
    "docs/observers.md": [lambda: {"state": {}, **any_loop()}, dict],
}


@pytest.mark.parametrize("name", FILES)
def test_every_block_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(ROOT / name)
    examples = list(document.examples())
    setups = SETUPS.get(name, [])
    assert len(setups) in (0, len(examples))
    for i, example in enumerate(examples):
        if setups:
            example.namespace.update(setups[i]())
        example.evaluate()


def test_the_first_three_examples_are_there():
    text = (ROOT / "README.md").read_text()
    assert [f"# {n}. " in text for n in (1, 2, 3)] == [True] * 3
