"""The picture of a replay; needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stopctl.curves.recording import CurveError
from stopctl.curves.replay import Replay, Summary

MOST = 12
"""Curves that are drawn one by one; of more, only what the rules cost and lose."""

STEEP = 50
"""Largest over smallest value from which on the axis is logarithmic."""

CURVE, BEST = "#5b6470", "#2e8b57"


def plot_replay(path: Path, replays: Sequence[Sequence[Replay]], summaries: Sequence[Summary]) -> None:
    """Write a PNG: each curve with the stops of every rule; of many curves, mean regret against mean share.

    Args:
        path: the file; one that is there is replaced.
        replays, summaries: as `replay_all` gave them, one for each rule.

    Raises:
        CurveError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CurveError("--plot needs matplotlib: pip install 'stopctl[plot]'") from error
    names = list(dict.fromkeys(id(one.curve) for row in replays for one in row))
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    if len(names) <= MOST:
        _draw_curves(figure, names, replays)
    else:
        _draw_means(figure, len(names), summaries)
    try:
        figure.savefig(path, dpi=130, format="png")
    except OSError as error:
        raise CurveError(f"{path} cannot be written: {error.strerror}") from error


def _draw_curves(figure: Any, curves: Sequence[int], replays: Sequence[Sequence[Replay]]) -> None:
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure.set_size_inches(4.6 * columns + 2.5, 3.2 * rows + 0.3)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for which, axes in zip(curves, panels, strict=False):
        marks = [(k, one) for k, row in enumerate(replays) for one in row if id(one.curve) == which]
        curve = marks[0][1].curve
        passes = [curve.passed(t) for t in range(1, len(curve.values) + 1)]
        axes.plot(passes, curve.values, color=CURVE, linewidth=1.4)
        at = curve.best.index(curve.best[-1])
        axes.plot(passes[at], curve.values[at], "*", color=BEST, markersize=13, label="best")
        for k, one in marks:
            color = f"C{k % 10}"
            if one.stop is not None:  # ever thinner, so that all are seen where they stop together
                width = 1.6 + 1.4 * max(0, len(replays) - 1 - k)
                axes.axvline(one.passes, color=color, linewidth=width, alpha=0.9, label=one.rule, zorder=1)
            else:
                height = 1 - 0.07 * (k + 0.5)
                axes.plot(
                    1.01, height, ">", color=color, transform=axes.transAxes, clip_on=False, label=one.rule
                )
        finite = [value for value in curve.values if value - value == 0.0]
        if 0 < min(finite) * STEEP < max(finite):
            axes.set_yscale("log")
        axes.set_title(_short(curve.name), fontsize=9, loc="left")
        axes.set_xlabel(curve.unit)
        axes.set_ylabel(_short(curve.goal.metric))
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels:  # those that no curve was left for
        axes.set_visible(False)
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if label not in handles or handle.get_marker() == "None":  # rather a line than a >
                handles[label] = handle
    names = ["best", *(row[0].rule for row in replays)]
    title = "> at the right edge:\nnot stopped"
    figure.legend(
        [handles[name] for name in names], names, loc="outside right upper", frameon=False, title=title
    )


def _draw_means(figure: Any, curves: int, summaries: Sequence[Summary]) -> None:
    figure.set_size_inches(9, 5.5)
    axes = figure.subplots()
    for k, one in enumerate(summaries):
        part = "" if one.curves == curves else f" ({one.curves} curves)"
        marker = "osD^vP"[k // 10 % 6]
        axes.plot(one.share, one.regret, marker, color=f"C{k % 10}", markersize=9, label=one.rule + part)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("mean share of the recorded run")
    axes.set_ylabel("mean regret: share of the gain that was lost")
    axes.set_title(f"{curves} recorded curves: cheap is left, good is low", loc="left")
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small", frameon=False)


def _short(name: str) -> str:
    return name if len(name) <= 44 else "…" + name[-43:]
