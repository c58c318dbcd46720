"""load: the weights of a run, elsewhere and later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stopctl import CheckpointInfo, Goal, MismatchError, SettingError
from stopctl.ports import choose
from stopctl_tf import arguments, strategies
from stopctl_tf.parts import VariablesPart
from stopctl_tf.restore import restore


def load(
    directory: str | Path, *, model: Any, which: str = "best", goal: Goal | None = None
) -> CheckpointInfo:
    """Put the saved weights of a run into a model: verified, without the run's lock, optimizer or generators.

    Args:
        directory: The run's directory; it may be in use.
        model: As it was given to the run: a Keras model (an unbuilt one is built from the saved shapes), a
            ``tf.Module``, a ``tf.Variable``, or a dict of these by name, of which some may be left out.
        which: ``"best"``, ``"latest"``, or the name of a checkpoint.
        goal: whose best is meant by ``"best"``, such as ``Maximize("f1")``; None: the run's.

    Returns:
        The checkpoint that was read.

    Raises:
        NotARunError, DamagedError: nothing there, or nothing that verifies.
        SettingError: no model, or a ``which`` that the run does not have.
        MismatchError: the saved variables do not fit the model; it is as it was.
    """
    parts = {name: VariablesPart(thing, name) for name, thing in arguments.models(model).items()}
    if not parts:
        raise SettingError("model=None: load() puts weights into a model, pass one")
    info, components = choose(directory, which, goal=goal, only=frozenset(parts))
    missing = [name for name in parts if name not in components]
    if missing:
        saved = ", ".join(name for name in info.components if name.split(".")[0] == "model") or "no model"
        raise MismatchError(f"{info.path} holds no {', '.join(missing)}; it holds {saved}")
    things = [part.thing for part in parts.values()]
    variables = (slot.raw for part in parts.values() for slot in part.slots())
    with strategies.scope(strategies.of(things, variables)):
        restore(parts, {name: components[name] for name in parts})
    return info
