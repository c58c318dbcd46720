"""load: the weights of a finished or running run, without its optimizer and without its lock."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch

from stopctl import CheckpointInfo, Goal, MismatchError, TreeError
from stopctl.ports import Leaf, Sharded, Tree, averages, check_fit, choose, fit, left_out_told
from stopctl_torch import arguments
from stopctl_torch.leaves import Encoder
from stopctl_torch.parts import METADATA, ModulePart, load_checked

log = logging.getLogger("stopctl")


def load(
    directory: str | Path,
    *,
    model: torch.nn.Module | Mapping[str, torch.nn.Module],
    which: str = "best",
    goal: Goal | None = None,
    strict: bool = True,
    rename: Mapping[str, str] = MappingProxyType({}),
) -> CheckpointInfo:
    """Load the weights of one checkpoint, verified, into ``model``; touch nothing else.

    Args:
        directory: the run's directory, or the URL of its mirror.
        model: a fresh module like the one that was trained, or a dict of those that are wanted, by the names
            they have in the run; ``{"extra.ema": net}`` takes what stands in ``extra={"ema": ...}``. Averages
            go into an AveragedModel or into the model itself. Parameters stay on their device.
        which: "best", "latest", or the name of a checkpoint.
        goal: whose best is meant by "best", such as ``Maximize("f1")``; None: the run's.
        strict: names, shapes and dtypes must be the same on both sides; False: what fits is loaded, and one
            line of the log tells what does not.
        rename: what saved names are called in ``model``: ``{"head.weight": "classifier.weight"}``, or of all
            that begins with them, ``{"backbone": "encoder", "module": ""}``.

    Returns:
        What was loaded: its epoch, step, value, and in ``is_best`` whether that is the best value reported.

    Raises:
        MismatchError: names, shapes or dtypes differ, each told with its path, or nothing fits at all; the
            model is as it was.
        NotARunError, SettingError, DamagedError: no run, no such checkpoint, or none that verifies.
    """
    check_fit(strict, rename)
    given = {name: ModulePart(module) for name, module in arguments.models(model).items()}
    info, components = choose(directory, which, goal=goal, only={*given, *map(_extra, given)})
    names = {name: name if name in components else _extra(name) for name in given}
    if lacking := [name for name, saved in names.items() if saved not in components]:
        there = [name for name in info.components if name.partition(".")[0] in ("model", "extra")]
        raise MismatchError(
            f"{info.name} has no {', '.join(lacking)}; its models are {', '.join(there) or 'none'}: "
            'write model=net for "model", model={"a": net} for "model.a", {"extra.a": net} for "extra.a"'
        )
    parts = {names[name]: part for name, part in given.items()}
    exact = strict and not rename
    trees = {name: _captured(part, name, "none" if exact else "view") for name, part in parts.items()}
    saved = {name: _module_tree(components[name], trees[name], name) for name in parts}
    if not exact:
        saved, left_out = fit(saved, trees, strict=strict, rename=rename)
        if left_out:
            log.warning("of %s %s", info.name, left_out_told(left_out))
    load_checked(parts, saved)
    return info


def _captured(part: ModulePart, name: str, data: Literal["none", "view"]) -> Any:
    try:
        return part.capture(Encoder(data), name)
    except TreeError as error:
        raise MismatchError(f"the saved weights cannot go in: {error}") from error


def _extra(name: str) -> str:
    """``"model.extra.ema"``, as a dict names it: ``"extra.ema"``."""
    return name.removeprefix("model.")


def _module_tree(saved: Tree, given: dict[str, Tree], name: str) -> Tree:
    """What was saved of a module, of its averages, or the weights in the state of another object."""
    if not isinstance(saved, dict):
        return saved
    if METADATA in saved:
        return saved if "n_averaged" in given else averages(saved)
    dicts = _dicts(saved.get("state"))
    found = [each for each in dicts if any(isinstance(value, Leaf | Sharded) for value in each.values())]
    if not found:
        raise MismatchError(f"{name}: what was saved is not the weights of a module")
    wanted = given.keys() - {METADATA}
    best = max(found, key=lambda each: len(wanted & each.keys()))
    arrays = {key: value for key, value in best.items() if isinstance(value, Leaf | Sharded)}
    return {**arrays, METADATA: given[METADATA]}


def _dicts(tree: Any) -> Iterator[dict[str, Any]]:
    """A dict, and those in it."""
    if isinstance(tree, dict):
        yield tree
        for each in tree.values():
            yield from _dicts(each)
