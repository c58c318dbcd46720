"""More stopping rules, written against the public policy protocol."""

from __future__ import annotations

from stopctl.rules.folds import FoldChoice, epochs_from_folds
from stopctl.rules.prechelt import GeneralizationLoss, ProgressQuotient, SuccessiveRises
from stopctl.rules.remaining import RemainingGain
from stopctl.rules.smoothed import Smoothed

__all__ = [
    "FoldChoice",
    "GeneralizationLoss",
    "ProgressQuotient",
    "RemainingGain",
    "Smoothed",
    "SuccessiveRises",
    "epochs_from_folds",
]
