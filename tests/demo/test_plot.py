from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from stopctl.demo import plot as module
from stopctl.demo.plot import BEST, STOP, TRAIN, VALID, plot
from stopctl.runs.history import History
from stopctl.runs.moment import Moment, Place
from stopctl.runs.stretch import Stretch

EPOCHS = tuple(range(1, 16))
TRAIN_LOSS = tuple(0.4 / epoch for epoch in EPOCHS)
VAL_LOSS = tuple(0.1 + (epoch - 10) ** 2 / 900 for epoch in EPOCHS)


def history(losses: Iterable[tuple[float | str, float | str]], saved: Collection[int] = ()) -> History:
    """A run with these training and validation losses, saved after these epochs."""
    moments = []
    for epoch, (train, valid) in enumerate(losses, 1):
        line = {"epoch": epoch, "step": 0, "metrics": {"train_loss": train, "val_loss": valid}}
        moments.append(Moment("report", Place(epoch, 0), line, ""))
        if epoch in saved:
            moments.append(Moment("saved", Place(epoch, 0), {}, ""))
    return History([Stretch(moments)], 0, "val_loss")


RUN = history(zip(TRAIN_LOSS, VAL_LOSS, strict=True), (1, 5, 10, 15))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn."""
    figures: list[Figure] = []

    class Kept(Figure):
        def __init__(self, *arguments: object, **settings: object) -> None:
            super().__init__(*arguments, **settings)  # type: ignore[arg-type]
            figures.append(self)

    monkeypatch.setattr(module, "Figure", Kept)
    return figures


def _has(path: Path, colour: str) -> bool:
    """Whether some pixel has exactly this colour."""
    return bool((np.abs(imread(path)[:, :, :3] - to_rgb(colour)) < 1 / 512).all(axis=2).any())


def test_picture_is_1600x900_with_both_curves_best_and_stop(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    plot(path, RUN, title="MLP", ending="stopped after epoch 15", best=10, kept={10, 15})
    assert path.read_bytes().startswith(b"\x89PNG")
    assert imread(path).shape == (900, 1600, 4)
    assert all(_has(path, colour) for colour in (TRAIN, VALID, BEST, STOP))
    assert not _has(path, "#ff00ff")


def test_legend_and_titles_say_what_is_shown(tmp_path: Path, drawn: list[Figure]) -> None:
    plot(
        tmp_path / "curves.png",
        RUN,
        title="MLP",
        ending="stopped after epoch 15: why",
        best=10,
        kept={10, 15},
    )
    (figure,) = drawn
    (legend,), (axes,) = figure.legends, figure.axes
    assert [text.get_text() for text in legend.get_texts()] == [
        "training loss",
        "validation loss",
        "saved, pruned later",
        "saved, kept",
        "best: 0.1000, epoch 10",
        "end: after epoch 15",
    ]
    assert [text.get_text() for text in axes.texts] == ["MLP"]
    assert axes.get_title(loc="left") == "stopped after epoch 15: why"
    marked = {line.get_label(): list(map(int, line.get_xdata())) for line in axes.lines}  # type: ignore[arg-type]
    assert marked["saved, pruned later"] == [1, 5]
    assert marked["saved, kept"] == [10, 15]
    assert marked["best: 0.1000, epoch 10"] == [10]


def test_a_run_with_nothing_saved_pruned_or_finite_is_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    plot(tmp_path / "a.png", history([(0.5, "NaN")]), title="t", ending="e", best=None, kept=())
    plot(tmp_path / "b.png", history([]), title="t", ending="e", best=None, kept=())
    labels = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn]
    assert labels == [
        ["training loss", "validation loss", "end: after epoch 1"],
        ["training loss", "validation loss"],
    ]
    assert imread(tmp_path / "b.png").shape == (900, 1600, 4)


def test_no_global_state_of_pyplot_is_used(tmp_path: Path) -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    plot(tmp_path / "curves.png", RUN, title="MLP", ending="", best=10, kept={10})
    assert ("matplotlib.pyplot" in sys.modules) is loaded
