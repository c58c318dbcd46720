"""load: the weights of a run, elsewhere and later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stopctl import CheckpointInfo, Goal, SettingError
from stopctl.ports import check_fit
from stopctl_keras.load import put
from stopctl_tf import arguments, strategies
from stopctl_tf.parts import VariablesPart
from stopctl_tf.rng import RNGS


def load(
    directory: str | Path,
    *,
    model: Any,
    which: str = "best",
    goal: Goal | None = None,
    strict: bool = True,
    rename: Mapping[str, str] = MappingProxyType({}),
) -> CheckpointInfo:
    """Put the saved weights of a run into a model: verified, without the run's lock, optimizer or generators.

    Args:
        directory: The run's directory, or the URL of its mirror; it may be in use.
        model: As it was given to the run: a Keras model (an unbuilt one is built from the saved shapes), a
            ``tf.Module``, a ``tf.Variable``, or a dict of these by name, of which some may be left out.
        which: ``"best"``, ``"latest"``, or the name of a checkpoint.
        goal: whose best is meant by ``"best"``, such as ``Maximize("f1")``; None: the run's.
        strict: names, shapes and dtypes must be the same on both sides; False: what fits is loaded, and one
            line of the log tells what does not.
        rename: what saved variables are called in ``model``, by their numbers and names in
            ``model.variables``: ``{"2.kernel": "4.kernel"}``.

    Returns:
        The checkpoint that was read.

    Raises:
        NotARunError, DamagedError: nothing there, or nothing that verifies.
        SettingError: no model, or a ``which`` that the run does not have.
        MismatchError: the saved variables do not fit the model; it is as it was.
    """
    check_fit(strict, rename)
    parts = {name: VariablesPart(thing, name) for name, thing in arguments.models(model).items()}
    if not parts:
        raise SettingError("model=None: load() puts weights into a model, pass one")
    things = [part.thing for part in parts.values()]
    variables = (slot.raw for part in parts.values() for slot in part.slots())
    with strategies.scope(strategies.of(things, variables)):
        return put(parts, directory, which, goal, generators=RNGS, strict=strict, rename=rename)
