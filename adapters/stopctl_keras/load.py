"""load: the weights of a run, elsewhere and later."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stopctl import CheckpointInfo, Goal, MismatchError
from stopctl.ports import Tree, choose, fit, left_out_told, named
from stopctl_keras import backend
from stopctl_keras.parts import Part, VariablesPart
from stopctl_keras.restore import restore, stands
from stopctl_keras.state import KINDS

log = logging.getLogger("stopctl")


def load(
    directory: str | Path, *, model: Any, which: str = "best", goal: Goal | None = None
) -> CheckpointInfo:
    """Put the saved weights of a run into a model: verified, without the run's lock, optimizer or generators.

    Args:
        directory: The run's directory, or the URL of its mirror; it may be in use.
        model: As it was given to the run: a Keras model (an unbuilt one is built from the saved shapes), or a
            dict of several by name, of which some may be left out.
        which: ``"best"``, ``"latest"``, or the name of a checkpoint.
        goal: whose best is meant by ``"best"``, such as ``Maximize("f1")``; None: the run's.

    Returns:
        The checkpoint that was read.

    Raises:
        NotARunError, DamagedError: nothing there, or nothing that verifies.
        SettingError: no model, or a ``which`` that the run does not have.
        MismatchError: the saved variables do not fit the model; it is as it was.
    """
    backend.refuse_other_keras()
    things = model.values() if isinstance(model, dict) else [model]
    backend.refuse_tf_keras(things)
    backend.refuse_strategy(things)
    wanted = "a Keras model or layer, or a dict of them by name"
    given = named("model", model, lambda thing: isinstance(thing, KINDS), wanted, required=True)
    parts = {name: VariablesPart(thing, name) for name, thing in given.items()}
    return put(parts, directory, which, goal)


def put(
    parts: Mapping[str, VariablesPart],
    directory: str | Path,
    which: str,
    goal: Goal | None,
    *,
    generators: Mapping[str, Part] = MappingProxyType({}),
    strict: bool = True,
    rename: Mapping[str, str] = MappingProxyType({}),
) -> CheckpointInfo:
    """Put the weights of a checkpoint into ``parts``; where that fails, ``generators`` are as they were.

    Raises:
        NotARunError, DamagedError, SettingError, MismatchError: as `load` says.
    """
    info, components = choose(directory, which, goal=goal, only=frozenset(parts))
    missing = [name for name in parts if name not in components]
    if missing:
        there = ", ".join(name for name in info.components if name.split(".")[0] == "model") or "no model"
        raise MismatchError(f"{info.path} holds no {', '.join(missing)}; it holds {there}")
    saved: dict[str, Tree] = {name: components[name] for name in parts}
    left_out: list[str] = []
    if rename or not strict:
        for name, part in parts.items():
            part.build(saved[name])
        given = {name: part.capture(name) for name, part in parts.items()}
        saved, left_out = fit(saved, given, strict=strict, rename=rename)
    restore(parts, saved, generators)
    if left_out:
        log.warning("of %s %s", info.name, left_out_told(left_out))
    for line in stands(parts, components):
        log.warning("%s: %s", info.name, line)
    return info
