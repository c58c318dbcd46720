"""stopctl decides when a training run stops, when it is saved and what is kept, and resumes it exactly."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stopctl.core.controller import Controller
    from stopctl.core.decision import Cause, Decision, Reason, Save, Stop
    from stopctl.core.errors import (
        BestNotSaved,
        DamagedError,
        LockedError,
        MetricError,
        MismatchError,
        NotARunError,
        OrderError,
        Preempted,
        ReportError,
        SaveError,
        SettingError,
        StateError,
        StopctlError,
        TeamError,
        TreeError,
    )
    from stopctl.core.goal import Goal, Maximize, Minimize
    from stopctl.core.keep import Best, KeepEvery, KeepPolicy, Last
    from stopctl.core.lr import ReduceOnPlateau
    from stopctl.core.policy import SavePolicy, StopPolicy
    from stopctl.core.progress import Progress, Report
    from stopctl.core.save import Every, OnBest
    from stopctl.core.stop import After, Diverged, NonFinite, Patience, Target
    from stopctl.core.stopper import EarlyStopper
    from stopctl.export import load_exported
    from stopctl.run.run import Run
    from stopctl.run.settings import RunSettings
    from stopctl.runs.peek import Peek, peek
    from stopctl.runs.weights import Weights
    from stopctl.state.data import Indices
    from stopctl.state.folder import FolderState
    from stopctl.store import CheckpointInfo

_HOMES = {
    "stopctl.core.controller": "Controller",
    "stopctl.core.decision": "Cause Decision Reason Save Stop",
    "stopctl.core.errors": (
        "BestNotSaved DamagedError LockedError MetricError MismatchError NotARunError OrderError Preempted "
        "ReportError SaveError SettingError StateError StopctlError TeamError TreeError"
    ),
    "stopctl.core.goal": "Goal Maximize Minimize",
    "stopctl.core.keep": "Best KeepEvery KeepPolicy Last",
    "stopctl.core.lr": "ReduceOnPlateau",
    "stopctl.core.policy": "SavePolicy StopPolicy",
    "stopctl.core.progress": "Progress Report",
    "stopctl.core.save": "Every OnBest",
    "stopctl.core.stop": "After Diverged NonFinite Patience Target",
    "stopctl.core.stopper": "EarlyStopper",
    "stopctl.export": "load_exported",
    "stopctl.state.data": "Indices",
    "stopctl.state.folder": "FolderState",
    "stopctl.run.run": "Run",
    "stopctl.run.settings": "RunSettings",
    "stopctl.runs.peek": "Peek peek",
    "stopctl.runs.weights": "Weights",
    "stopctl.store": "CheckpointInfo",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

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
    "FolderState",
    "Goal",
    "Indices",
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
    "Peek",
    "Preempted",
    "Progress",
    "Reason",
    "ReduceOnPlateau",
    "Report",
    "ReportError",
    "Run",
    "RunSettings",
    "Save",
    "SaveError",
    "SavePolicy",
    "SettingError",
    "StateError",
    "Stop",
    "StopPolicy",
    "StopctlError",
    "Target",
    "TeamError",
    "TreeError",
    "Weights",
    "load_exported",
    "peek",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load what is used on first use, so that importing stopctl costs next to nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'stopctl' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
