"""The door is typed: a checker refuses wrong settings in every Run and in FitCallback, and no right one."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_type_hints

import pytest

import stopctl
from stopctl.run.settings import RunSettings, Settings

ROOT = Path(__file__).parent.parent
HEAD = """
from __future__ import annotations
from typing import Any
import stopctl, stopctl_jax, stopctl_keras, stopctl_tf, stopctl_torch, torch
from stopctl import Every, Last, Maximize, Minimize, NonFinite, OnBest, Patience, ReduceOnPlateau
model: torch.nn.Module = torch.nn.Linear(2, 1)
keras_model: Any = None
"""
DOORS = {
    "stopctl.Run": 'stopctl.Run("runs/a", state={}, {})',
    "stopctl_torch.Run": 'stopctl_torch.Run("runs/a", model=model, {})',
    "stopctl_jax.Run": 'stopctl_jax.Run("runs/a", state={"w": 1.0}, {})',
    "stopctl_tf.Run": 'stopctl_tf.Run("runs/a", model=keras_model, {})',
    "FitCallback": 'stopctl_tf.FitCallback("runs/a", {})',
    "stopctl_keras.FitCallback": 'stopctl_keras.FitCallback("runs/a", {})',
}
WRONG = [
    'stop="five"',
    "stop=OnBest()",
    "sav=Every(epochs=1)",
    "save=Patience(3)",
    "keep=Patience(3)",
    'goal="val_loss"',
    'async_save="later"',
    'resume="maybe"',
    "patience=3",
    'monitor="val_loss"',
    "lr=0.1",
    'grace_seconds="30"',
    "mirror=3",
]
RIGHT = [
    "stop=Patience(5) | NonFinite(), save=Every(epochs=10) | OnBest(), keep=Last(2)",
    'goal=Maximize("accuracy"), lr=ReduceOnPlateau(0.1, patience=3), stop=None, save=None, keep=None',
    'resume="require", notes={"seed": 1}, allow_missing={"scheduler"}, start_from_run="runs/b", take_over=True',
    'anew={"lr"}, start_from_run=stopctl.Weights("runs/b", strict=False, rename={"a": "b"})',
    'durability="process", verify_writes=True, async_save="overlap", save_errors="continue", grace_seconds=30',
    'mirror="s3://bucket/a", mirror_options={"anon": False}, mirror_max_age=600',
    'team=None, timeout=5, reduce={"val_loss": "mean"}, observers=[stopctl_sink]',
]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What mypy --strict says of a file of all calls: its errors by line, and the calls by line."""
    folder = tmp_path_factory.mktemp("door")
    lines = [
        *HEAD.strip().splitlines(),
        "from stopctl.sinks import CsvSink",
        'stopctl_sink = CsvSink("m.csv")',
    ]
    calls = {}
    for kind, settings in (("wrong", WRONG), ("right", RIGHT)):
        for door, call in DOORS.items():
            for given in settings:
                calls[len(lines) + 1] = (kind, door, given)
                lines.append(call.replace("{})", f"{given})"))
    for kind, call in (("wrong", 'monitor="val_loss"'), ("wrong", "patience='5'"), ("right", "patience=5")):
        calls[len(lines) + 1] = (kind, "EarlyStopper", call)
        lines.append(f"stopctl.EarlyStopper({call})")
    calls[len(lines) + 1] = ("right", "epochs", "len")
    lines.append('n: int = len(stopctl.Run("runs/a", state={}).epochs(5))')
    batches, pushed = (
        'stopctl.Run("runs/a", state={}).batches([1, 2])',
        'stopctl.Run("runs/a", state={}).open()',
    )
    for kind, line in (
        ("right", f"item: int = next({batches})"),
        ("right", f"items: list[tuple[int, int]] = list(enumerate({batches}))"),
        ("right", f"size: tuple[int, Any] = (len({batches}), {batches}.batch_size)"),
        ("wrong", f"word: str = next({batches})"),
        ("wrong", batches.replace("])", '], steps="3")')),
        ("wrong", f"{batches}.batchsize"),
        ("right", f"{pushed}.report(val_loss=0.5, epoch=3, step=1200, planned=50).stop"),
        ("right", f"{pushed}.boundary(epoch=3, step=1250, inside=True).stop"),
        ("wrong", f'{pushed}.report(val_loss=0.5, epoch="3")'),
        ("wrong", f"{pushed}.boundary(3, 1250)"),
        ("wrong", f"{pushed}.boundary(step=1.5)"),
    ):
        calls[len(lines) + 1] = (kind, "batches", line)
        lines.append(line)
    (folder / "user.py").write_text("\n".join(lines) + "\n")
    (folder / "mypy.ini").write_text(
        "[mypy]\nstrict = true\nexplicit_package_bases = true\nnamespace_packages = true\n"
        f"mypy_path = {ROOT}:{ROOT / 'adapters'}\n"
        "[mypy-torch.*,tensorflow.*,jax.*,keras.*,numpy.*,tqdm.*]\n"
        "ignore_missing_imports = true\nfollow_imports = skip\n"
        "[mypy-stopctl.*,stopctl_jax.*,stopctl_torch.*,stopctl_keras.*,stopctl_tf.*]\nignore_errors = true\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "user.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = {int(number): text for number, text in re.findall(r"user\.py:(\d+): error: (.*)", done.stdout)}
    return calls, errors


def test_wrong_settings_are_errors_at_every_door(told):
    calls, errors = told
    missed = [call for line, call in calls.items() if call[0] == "wrong" and line not in errors]
    assert missed == []


def test_right_settings_are_none(told):
    calls, errors = told
    false = [(*call, errors[line]) for line, call in calls.items() if call[0] == "right" and line in errors]
    assert false == []
    assert set(errors) <= set(calls), "nor is anything else in the file"


def test_the_settings_are_defined_once():
    door, checked = get_type_hints(RunSettings), get_type_hints(Settings)
    del checked["audience"]
    assert door == checked
    listed = re.findall(r"^ {8}(\w+): ", RunSettings.__doc__ or "", re.MULTILINE)
    assert listed == list(door), "each is told of, in its order"
    assert stopctl.RunSettings is RunSettings


def test_every_package_of_the_wheel_says_that_it_is_typed():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]["packages"]
    assert [name for name in packages if not (ROOT / name / "py.typed").exists()] == []
