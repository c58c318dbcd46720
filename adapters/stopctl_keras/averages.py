"""Averages of weights that a callback swaps in and out of a model while it is fitted."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import keras

from stopctl import SettingError


def refuse_swapping(callback: Any) -> None:
    """Raise SettingError where the fit that has called ``callback`` has SwapEMAWeights among its callbacks.

    It judges the averages and swaps them out before the epoch ends, or leaves them in and remembers that in
    an attribute which no checkpoint has: the weights saved would not be those that were judged, or a resumed
    fit would train on from the averages.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        given = frame.f_locals.get("callbacks")
        beside = given.callbacks if isinstance(given, keras.callbacks.CallbackList) else []
        if callback in beside and any(isinstance(each, keras.callbacks.SwapEMAWeights) for each in beside):
            raise SettingError(
                "SwapEMAWeights swaps weights in and out of the model while it is validated and saved: those "
                "judged, saved and trained on need not be the same: leave it out; an optimizer with "
                "use_ema=True puts its averages into the model when fit ends, and "
                "FitCallback(restore_best=True) the best weights that were validated"
            )
        frame = frame.f_back
