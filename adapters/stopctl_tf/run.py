"""Run: stopctl.Run around a TensorFlow or Keras model and all that trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

import stopctl
from stopctl import RunSettings, SettingError
from stopctl_tf.state import TfState


class Run(stopctl.Run):
    """Stops, saves, prunes and resumes a TensorFlow training loop; use it in a ``with`` block.

    Args:
        directory: Where the run lives; made if need be.
        model: The Keras model, ``tf.Module`` or ``tf.Variable`` to train, or a dict of several by name.
        optimizer: The Keras optimizer that trains it, or a dict of several by name.
        extra: Whatever else moves while training, by name (see TfState).
        settings: When to stop and save, what to keep, and the rest; see `stopctl.RunSettings`.

    Raises:
        SettingError, TreeError: arguments that do not belong together or cannot be saved. Opening raises what
            stopctl.Run raises, and MismatchError when a checkpoint does not fit the objects given.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        model: Any = None,
        optimizer: Any = None,
        extra: Any = None,
        **settings: Unpack[RunSettings],
    ) -> None:
        if "state" in settings:
            raise SettingError("stopctl_tf.Run has no state=: write model=..., and extra={...} for the rest")
        super().__init__(directory, state=TfState(model=model, optimizer=optimizer, extra=extra), **settings)
