"""README's programs and those of docs/examples run as they stand, killed as well; the blocks of docs in order."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from stopctl.store import Reader
from stopctl.testing.bitwise import common, differences_of
from support.portion import mostly_long

ROOT = Path(__file__).parent.parent
README, CHINESE = ROOT / "README.md", ROOT / "docs" / "README.zh.md"
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md") if path != CHINESE)

KILLED = {
    "readme-1": 6,
    "readme-2": 6,
    "pytorch": 130,
    "gradient_tape": 60,
    "keras_fit": 6,
    "jax_loop": 60,
    "scikit_learn": 9,
    "accumulation": 107,
    "gan": 12,
    "k_fold": 230,
}
"""The boundary behind which each program is killed: in the middle of its work, with some that is lost."""

UNSEEDED = frozenset({"rng.python", "rng.numpy", "run.data"})
"""Shared generators that programs leave alone, and where they stood when the data began; weights tell the rest."""


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


class Host:
    """Trains by itself, in epochs of four steps, and calls back."""

    def __init__(self, model: dict[str, float]) -> None:
        self.model, self.epoch, self.step, self.should_stop = model, 0, 0, False

    def fit(self, epochs: int, callback: Any) -> None:
        self.epochs = epochs
        callback.on_fit_begin(self)
        while not self.should_stop and self.epoch < epochs:
            self.model["w"] += 1
            self.step += 1
            if self.step % 4:
                callback.on_step_end(self)
            else:
                self.epoch += 1
                callback.on_epoch_end(self, {"val_loss": abs(20.0 - self.model["w"])})


def host_and_model() -> dict[str, Any]:
    model = {"w": 0.0}
    return {"model": model, "host": Host(model)}


SETUPS: dict[str, list[Any]] = {
    "docs/tutorial.md": [dict, no_framework, torch_loop, no_framework, torch_batches, own_files],
    "docs/adapters.md": [
        lambda: {"model": Grid()},
        lambda: {"loader": GridLoader()},
        dict,
        host_and_model,
    ],
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


def blocks(path: Path, language: str = r"\w*") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def play(directory: Path, name: str, *killed: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a directory that has nothing but, for README's, the program itself."""
    program = ROOT / "docs" / "examples" / f"{name}.py"
    if name.startswith("readme-"):
        program = directory / "program.py"
        program.write_text(blocks(README, "python")[int(name[-1]) - 1])
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    env = {**os.environ, **threads, **({"KERAS_BACKEND": "jax"} if name == "keras_fit" else {})}
    env.pop("STOPCTL_QUIET", None)
    words = [sys.executable, *map(str, killed), str(program)]
    return subprocess.run(
        words, cwd=directory, env=env, capture_output=True, text=True, timeout=250, check=False
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Callable[[str], tuple[Path, str]]:
    """Where a program that nobody disturbs has run, and what it printed; once each."""
    done: dict[str, tuple[Path, str]] = {}

    def run(name: str) -> tuple[Path, str]:
        if name not in done:
            directory = tmp_path_factory.mktemp(name)
            ended = play(directory, name)
            assert ended.returncode == 0, ended.stderr
            assert "Warning" not in ended.stderr
            done[name] = directory, ended.stdout
        return done[name]

    return run


def test_the_list_of_programs_is_whole():
    there = {path.stem for path in (ROOT / "docs" / "examples").iterdir() if path.suffix == ".py"}
    assert {name for name in KILLED if not name.startswith("readme-")} == there
    page = (ROOT / "docs" / "examples.md").read_text()
    assert set(re.findall(r'^--8<-- "docs/examples/(\w+)\.py"$', page, re.MULTILINE)) == there
    assert set(re.findall(r"\(examples/(\w+)\.py\)", page)) == there


@pytest.mark.parametrize("name", [*KILLED, "readme-3"])
def test_a_program_runs_as_it_stands_in_an_empty_directory(name, undisturbed):
    directory, printed = undisturbed(name)
    assert printed.count("\n") >= 1
    runs = list(directory.rglob("run.json"))
    assert bool(runs) == (name != "readme-3")
    for run in runs:
        assert Reader(run.parent).list().good


@pytest.mark.timeout(900)  # three processes that import a framework each
@pytest.mark.parametrize("name", mostly_long(KILLED, ["k_fold"]))
def test_killed_and_started_again_it_ends_with_the_same_bits(name, tmp_path, undisturbed):
    straight, printed = undisturbed(name)
    killed = play(tmp_path, name, ROOT / "tests" / "support" / "killed.py", KILLED[name])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = play(tmp_path, name)
    assert again.returncode == 0, again.stderr
    resumed = 0
    for run in straight.rglob("run.json"):
        other = tmp_path / run.parent.relative_to(straight)
        readers = Reader(run.parent), Reader(other)
        differing = differences_of(*readers)  # but for shared generators that the program leaves alone
        assert [each for each in differing if not UNSEEDED.issuperset(each.components)] == []
        assert common(*readers)[-1] == tuple(reader.list().good[-1] for reader in readers)
        resumed += (other / "journal.jsonl").read_text().count('"resume"')
    assert resumed >= 1  # not begun anew
    if name == "readme-1":
        told = killed.stderr + again.stderr + again.stdout
        (shown,) = blocks(README, "text")
        assert re.sub(r"[\d.]+", "#", told) == re.sub(r"[\d.]+", "#", shown)
    if name != "readme-2":  # whose fit prints a line for each epoch
        assert again.stdout == printed


def test_both_readmes_have_the_same_code_and_lead_to_each_other():
    assert blocks(CHINESE) == blocks(README)
    assert "](docs/README.zh.md)" in README.read_text().partition("```")[0]
    assert "](../README.md)" in CHINESE.read_text().partition("```")[0]
