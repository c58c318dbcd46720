"""stopctl decides when a training run stops, when it is saved and what is kept, and resumes it exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stopctl.core.controller import Controller
from stopctl.core.decision import Cause, Decision, Reason, Save, Stop
from stopctl.core.errors import MetricError, OrderError, ReportError, SettingError, StateError, StopctlError
from stopctl.core.goal import Goal, Maximize, Minimize
from stopctl.core.keep import Best, KeepEvery, KeepPolicy, Last
from stopctl.core.lr import ReduceOnPlateau
from stopctl.core.policy import SavePolicy, StopPolicy
from stopctl.core.progress import Progress, Report
from stopctl.core.save import Every, OnBest
from stopctl.core.stop import After, Diverged, NonFinite, Patience, Target
from stopctl.core.stopper import EarlyStopper

if TYPE_CHECKING:
    from stopctl.endings import BestNotSaved, Preempted
    from stopctl.run import Run
    from stopctl.store import (
        CheckpointInfo,
        DamagedError,
        LockedError,
        MismatchError,
        NotARunError,
        SaveError,
        TreeError,
    )

_LATER = {
    "BestNotSaved": "stopctl.endings",
    "Preempted": "stopctl.endings",
    "Run": "stopctl.run",
    "CheckpointInfo": "stopctl.store",
    "DamagedError": "stopctl.store",
    "LockedError": "stopctl.store",
    "MismatchError": "stopctl.store",
    "NotARunError": "stopctl.store",
    "SaveError": "stopctl.store",
    "TreeError": "stopctl.store",
}

__all__ = [
    "After",
    "Best",
    "BestNotSaved",
    "Cause",
    "CheckpointInfo",
    "Controller",
    "DamagedError",
    "Decision",
    "Diverged",
    "EarlyStopper",
    "Every",
    "Goal",
    "KeepEvery",
    "KeepPolicy",
    "Last",
    "LockedError",
    "Maximize",
    "MetricError",
    "Minimize",
    "MismatchError",
    "NonFinite",
    "NotARunError",
    "OnBest",
    "OrderError",
    "Patience",
    "Preempted",
    "Progress",
    "Reason",
    "ReduceOnPlateau",
    "Report",
    "ReportError",
    "Run",
    "Save",
    "SaveError",
    "SavePolicy",
    "SettingError",
    "StateError",
    "Stop",
    "StopPolicy",
    "StopctlError",
    "Target",
    "TreeError",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load Run and the store on first use, so that importing stopctl stays cheap."""
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'stopctl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
