"""What the journal tells of a run: its curves and its saves, over all the processes it took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class History:
    """One entry an epoch, losses in the epochs' order; `saved` are the epochs that were saved."""

    epochs: tuple[int, ...]
    train_loss: tuple[float, ...]
    val_loss: tuple[float, ...]
    saved: tuple[int, ...]


def history(lines: Iterable[Mapping[str, Any]]) -> History:
    """The journal's lines as curves; what a `resume` line voids (an epoch trained again) is left out."""
    reports: dict[int, Mapping[str, Any]] = {}
    saved: set[int] = set()
    for line in lines:
        match line["event"]:
            case "start" | "resume":
                reports = {epoch: metrics for epoch, metrics in reports.items() if epoch <= line["epoch"]}
                saved = {epoch for epoch in saved if epoch <= line["epoch"]}
            case "report":
                reports[line["epoch"]] = line["metrics"]
            case "saved":
                saved.add(line["epoch"])
    epochs = tuple(sorted(reports))
    # float() reads the journal's "NaN" and "Infinity", too.
    train, valid = (
        tuple(float(reports[epoch][name]) for epoch in epochs) for name in ("train_loss", "val_loss")
    )
    return History(epochs, train, valid, tuple(sorted(saved)))
