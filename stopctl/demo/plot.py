"""The picture of a run: both losses over the epochs, with the saves, the best and the stop marked."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stopctl.runs.history import History
from stopctl.store.journal import metrics

TRAIN, VALID, BEST, STOP, GREY = "#8a8f98", "#1f6fb4", "#2e8b57", "#c0392b", "#5b6470"


def plot(
    path: Path, run: History, *, title: str, ending: str, best: int | None, kept: Collection[int]
) -> None:
    """Write the picture as a PNG of 1600x900 pixels.

    Args:
        path: the file to write; one that is there is replaced.
        run: its journal, with ``train_loss`` and ``val_loss``.
        title: the first line, in bold.
        ending: why the run ended: the second line.
        best: the epoch with the best validation loss, if there is one.
        kept: the epochs whose checkpoint is still there; other saves have been pruned.
    """
    figure = Figure(figsize=(10, 5.625), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    losses = {line["epoch"]: metrics(line) for line in run.reports()}
    train, at = ({epoch: loss[name] for epoch, loss in losses.items()} for name in ("train_loss", "val_loss"))
    saved = [moment.place.epoch for moment in run.standing() if moment.event == "saved"]
    axes.plot([*train], [*train.values()], color=TRAIN, linewidth=1.6, label="training loss")
    axes.plot([*at], [*at.values()], color=VALID, linewidth=2.2, label="validation loss")
    for label, fill, epochs in (
        ("saved, pruned later", "white", [epoch for epoch in saved if epoch in at and epoch not in kept]),
        ("saved, kept", VALID, [epoch for epoch in sorted(kept) if epoch in at]),
    ):
        if epochs:
            axes.plot(
                epochs, [at[epoch] for epoch in epochs],
                linestyle="none", marker="o", markersize=7, color=VALID, markerfacecolor=fill, label=label,
            )  # fmt: skip
    if best is not None and best in at:
        label = f"best: {at[best]:.4f}, epoch {best}"
        axes.plot(best, at[best], linestyle="none", marker="*", markersize=19, color=BEST, label=label)
        axes.axhline(at[best], color=BEST, linewidth=0.8, alpha=0.6, linestyle=(0, (4, 4)))
    if at:
        first, *_, last = *at, *at
        axes.axvline(last, color=STOP, linewidth=1.4, linestyle=(0, (6, 3)), label=f"end: after epoch {last}")
        axes.set_xlim(min(0.5, first - 0.5), last + 0.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, markerscale=0.75, labelspacing=0.9)
    axes.set_title(ending, loc="left", fontsize=10.5, color=GREY)
    axes.text(0, 1.075, title, transform=axes.transAxes, fontsize=14, fontweight="bold")
    figure.savefig(path, dpi=160, format="png")
