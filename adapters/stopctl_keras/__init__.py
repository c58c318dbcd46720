"""stopctl for Keras 3 on tensorflow, torch and jax: stop, save and resume ``model.fit`` exactly."""

from __future__ import annotations

from stopctl_keras.fit import FitCallback
from stopctl_keras.load import load
from stopctl_keras.state import KerasState

__all__ = ["FitCallback", "KerasState", "load"]
