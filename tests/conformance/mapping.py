"""What the parameters of each peer's early stopping are in ours: its keywords in, those of EarlyStopper out.

What is exact everywhere is here; where a peer does something else, tests/conformance/test_*.py shows it in a test whose
name begins with test_differs, and docs/migrating.md has a row for it.
"""

from __future__ import annotations

from typing import Any


def keras(
    *,
    monitor: str = "val_loss",
    min_delta: float = 0,
    patience: int = 0,
    mode: str = "auto",
    baseline: float | None = None,
    restore_best_weights: bool = False,
    start_from_epoch: int = 0,
) -> dict[str, Any]:
    """keras.callbacks.EarlyStopping 3.15.

    ``monitor`` is the value that update() is given (Run: the goal's metric), and what restore_best_weights brings back is
    the state at ``best_step`` (Run: restore_best()).
    """
    if mode == "auto":
        raise ValueError(f"mode='auto' guesses the direction of {monitor!r}: write 'min' or 'max'")
    return {
        "patience": max(1, patience),
        "mode": mode,
        "min_delta": abs(min_delta),
        "baseline": baseline,
        "start_from": start_from_epoch,
        "nonfinite": "wait",
    }


def lightning(
    *,
    min_delta: float = 0.0,
    patience: int = 3,
    mode: str = "min",
    check_finite: bool = True,
    stopping_threshold: float | None = None,
    divergence_threshold: float | None = None,
) -> dict[str, Any]:
    """lightning.pytorch.callbacks.EarlyStopping 2.6."""
    return {
        "patience": max(1, patience),
        "mode": mode,
        "min_delta": min_delta,
        "target": stopping_threshold,
        "diverged": divergence_threshold,
        "nonfinite": "stop" if check_finite else "wait",
    }


def ignite(
    *,
    patience: int,
    threshold: float = 0.0,
    cumulative: bool = False,
    threshold_mode: str = "abs",
    mode: str = "max",
) -> dict[str, Any]:
    """ignite.handlers.EarlyStopping 0.5.5 (before it: min_delta, cumulative_delta, min_delta_mode).

    ``mode`` is the direction of what score_function returns. A score_function that negates a loss is dropped: give
    update() the loss, and mode="min".
    """
    if threshold and not cumulative:
        raise ValueError(f"threshold={threshold} counts from the last event, ours from the last improvement")
    return {
        "patience": patience,
        "mode": mode,
        "min_delta": threshold,
        "min_delta_mode": threshold_mode,
        "nonfinite": "wait",
    }


def flax(*, min_delta: float = 0, patience: int = 0) -> dict[str, Any]:
    """flax.training.early_stopping.EarlyStopping 0.12, which minimizes and stops one update after its patience."""
    return {"patience": patience + 1, "min_delta": min_delta, "nonfinite": "wait"}


def tutorial(*, patience: int = 7, delta: float = 0.0) -> dict[str, Any]:
    """The class EarlyStopping of many tutorials, as docs/migrating.md prints it."""
    return {"patience": patience, "min_delta": delta, "nonfinite": "wait"}
