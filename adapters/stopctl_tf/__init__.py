"""stopctl for TensorFlow and Keras 3: stop, save and resume a training loop exactly."""

from __future__ import annotations

from stopctl_tf.fit import FitCallback
from stopctl_tf.load import load
from stopctl_tf.run import Run
from stopctl_tf.shuffled import epoch_shuffled
from stopctl_tf.state import TfState

__all__ = ["FitCallback", "Run", "TfState", "epoch_shuffled", "load"]
