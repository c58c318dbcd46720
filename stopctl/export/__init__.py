"""The weights of a checkpoint alone, in one safetensors file, smaller if wanted; NumPy is loaded by this."""

from stopctl.export.load import load_exported
from stopctl.export.metric import Metric, metric, scores
from stopctl.export.read import Weight, Weights, read
from stopctl.export.rounding import TARGETS
from stopctl.export.write import Export, Exported, export, write

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
