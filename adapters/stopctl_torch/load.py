"""load: the weights of a finished or running run, without its optimizer and without its lock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from stopctl import CheckpointInfo, Goal, MismatchError
from stopctl.ports import choose
from stopctl_torch import arguments
from stopctl_torch.parts import ModulePart, load_checked


def load(
    directory: str | Path,
    *,
    model: torch.nn.Module | Mapping[str, torch.nn.Module],
    which: str = "best",
    goal: Goal | None = None,
) -> CheckpointInfo:
    """Load the weights of one checkpoint, verified, into ``model``; touch nothing else.

    Args:
        directory: the run's directory.
        model: a fresh module like the one that was trained, or a dict of those that are wanted, by the names
            they have in the run. Parameters stay on their device.
        which: "best", "latest", or the name of a checkpoint.
        goal: whose best is meant by "best", such as ``Maximize("f1")``; None: the run's.

    Returns:
        What was loaded: its epoch, step, value, and in ``is_best`` whether that is the best value reported.

    Raises:
        MismatchError: names, shapes or dtypes differ, each told with its path; the model is as it was.
        NotARunError, SettingError, DamagedError: no run, no such checkpoint, or none that verifies.
    """
    parts = {name: ModulePart(module) for name, module in arguments.models(model).items()}
    info, components = choose(directory, which, goal=goal, only=set(parts))
    if lacking := [name for name in parts if name not in components]:
        there = [name for name in info.components if name.partition(".")[0] == "model"]
        raise MismatchError(
            f"{info.name} has no {', '.join(lacking)}; its models are {', '.join(there) or 'none'}: "
            'write model=net for "model", model={"a": net} for "model.a"'
        )
    load_checked(parts, components, undo=False)
    return info
