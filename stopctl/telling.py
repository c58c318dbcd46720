"""What is told of a decision: the fields of its journal line, and one line for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from stopctl.core.decision import Decision
from stopctl.core.progress import Progress
from stopctl.core.values import float_to_json, number
from stopctl.core.words import figure
from stopctl.store import CheckpointInfo


def fields(decision: Decision, metrics: Mapping[str, object] | None) -> dict[str, Any]:
    """The journal's fields; ``metrics`` is None at a loop boundary."""
    told: dict[str, Any] = {}
    if metrics is not None:
        told["metrics"] = {name: float_to_json(number(value, name)) for name, value in metrics.items()}
        told["new_best"] = decision.new_best
        if decision.lr_factor is not None:
            told["lr_factor"] = decision.lr_factor
    stop, save = decision.stop, decision.save
    told["stop"] = None if stop is None else {"reason": stop.reason.value, "text": str(stop)}
    told["save"] = None if save is None else [reason.value for reason in save.reasons]
    return told


def line(decision: Decision, now: Progress, saved: CheckpointInfo | None, *, reported: bool) -> str | None:
    """One line for the log, None when nothing was decided."""
    parts = [f"epoch {now.epoch}, step {now.step}"]
    if reported:
        best = " (new best)" if decision.new_best else ""
        parts.append(f"{now.goal.metric} {figure(now.value)}{best}")
    if decision.lr_factor is not None:
        parts.append(f"learning rate times {figure(decision.lr_factor)}")
    if saved is not None:
        parts.append(f"saved {saved.name} ({decision.save})")
    if decision.stop is not None:
        parts.append(f"stop: {decision.stop}")
    decided = decision.new_best or decision.stop or saved or decision.lr_factor is not None
    return "; ".join(parts) if decided else None


def standing(now: Progress) -> str:
    """``"val_loss 0.2113, best 0.2101 (epoch 12)"``; empty before the first report."""
    if now.value is None:
        return ""
    if now.best is None:
        return f"{now.goal.metric} {figure(now.value)}, no finite value yet"
    at = f"epoch {now.best_epoch}" if now.best_epoch else f"step {now.best_step}"
    return f"{now.goal.metric} {figure(now.value)}, best {figure(now.best)} ({at})"


def disk_use(checkpoints: Collection[CheckpointInfo]) -> str:
    """``"3 checkpoints, 1.2 MB"``, and how much of that is in files that they may share."""
    many = "1 checkpoint" if len(checkpoints) == 1 else f"{len(checkpoints)} checkpoints"
    told = f"{many}, {_size(sum(info.bytes for info in checkpoints))}"
    shared = sum(info.frozen for info in checkpoints)
    return f"{told} ({_size(shared)} of it in files that they may share)" if shared else told


def _size(count: int) -> str:
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
