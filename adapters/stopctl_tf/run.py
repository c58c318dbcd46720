"""Run: stopctl.Run around a TensorFlow or Keras model and all that trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import stopctl
from stopctl import SettingError
from stopctl_tf.state import TfState


class Run(stopctl.Run):
    """Stops, saves, prunes and resumes a TensorFlow training loop; use it in a ``with`` block.

    Args:
        directory: Where the run lives; made if need be.
        model: The Keras model, ``tf.Module`` or ``tf.Variable`` to train, or a dict of several by name.
        optimizer: The Keras optimizer that trains it, or a dict of several by name.
        extra: Whatever else moves while training, by name (see TfState).
        settings: Those of stopctl.Run: goal, stop, save, keep, resume, notes, allow_missing.

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
        **settings: Any,
    ) -> None:
        if "state" in settings:
            raise SettingError("stopctl_tf.Run has no state=: write model=..., and extra={...} for the rest")
        super().__init__(directory, state=TfState(model=model, optimizer=optimizer, extra=extra), **settings)
