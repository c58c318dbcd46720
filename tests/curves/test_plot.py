from __future__ import annotations

import sys

import pytest

from stopctl import Patience
from stopctl.curves.plot import MOST, plot_replay
from stopctl.curves.recording import CurveError
from stopctl.curves.replay import replay_all
from support.made import losses, made


def done(count):
    curves = [made(losses(seed)) for seed in range(count)]
    outcomes, summaries = zip(*(replay_all(curves, Patience(n)) for n in (2, 40)), strict=True)
    return outcomes, summaries


def drawn(count, path, monkeypatch):
    """What matplotlib was asked to draw."""
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    plot_replay(path, *done(count))
    return figures[0].axes


def test_it_writes_a_png(tmp_path):
    plot_replay(tmp_path / "a.png", *done(1))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_few_curves_are_drawn_one_by_one_with_the_stop_of_every_rule(tmp_path, monkeypatch):
    axes = drawn(4, tmp_path / "a.png", monkeypatch)
    assert [one.get_visible() for one in axes] == [True] * 4 + [False] * 2
    line, _, stop, beyond = axes[0].lines
    assert list(line.get_ydata()) == losses(0)
    (outcome, *_), _ = done(1)[0]
    assert list(stop.get_xdata()) == [outcome.passes] * 2
    assert beyond.get_marker() == ">"  # Patience(40) does not stop this one
    assert [text.get_text() for text in axes[0].figure.legends[0].texts] == [
        "best", "Patience(2)", "Patience(40)",
    ]  # fmt: skip


def test_of_many_curves_the_means_of_every_rule(tmp_path, monkeypatch):
    (axes,) = drawn(MOST + 1, tmp_path / "a.png", monkeypatch)
    assert len(axes.lines) == 2


def test_without_matplotlib_or_a_folder_the_error_says_so(tmp_path, monkeypatch):
    with pytest.raises(CurveError, match="cannot be written: No such file"):
        plot_replay(tmp_path / "no" / "a.png", *done(1))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(CurveError, match=r"--plot needs matplotlib: pip install 'stopctl\[plot\]'"):
        plot_replay(tmp_path / "a.png", *done(1))
