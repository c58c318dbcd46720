"""The weights of a checkpoint alone, in one safetensors file, smaller if wanted; NumPy is loaded by this."""

from stopctl.exporting.evaluating import Metric, metric, scores
from stopctl.exporting.exporting import Export, Exported, export, write
from stopctl.exporting.loading import load_exported
from stopctl.exporting.rounding import TARGETS
from stopctl.exporting.weights import Weight, Weights, read

__all__ = [
    "TARGETS",
    "Export",
    "Exported",
    "Metric",
    "Weight",
    "Weights",
    "export",
    "load_exported",
    "metric",
    "read",
    "scores",
    "write",
]
