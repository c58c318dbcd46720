"""A loop's progress: tqdm around it, or beside it."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.progress import track
from tqdm import tqdm

from stopctl import Patience, Run, SettingError


def run_of(directory, **settings):
    return Run(directory, state={}, stop=Patience(2), save=None, **settings)


def test_the_passes_know_how_many_they_are(tmp_path):
    with run_of(tmp_path) as run:
        passes = run.epochs(5)
        assert len(passes) == 5
        left = []
        for epoch in passes:
            run.report(val_loss=2.0**-epoch)
            left.append(len(passes))
        assert left == [5, 4, 3, 2, 1]
        assert len(passes) == len(run.epochs(5)) == 0
        assert len(run.epochs(7)) == 2
        assert list(passes) == []


def test_a_stopped_run_has_no_passes_left(tmp_path):
    with run_of(tmp_path) as run:
        for _ in run.steps(50):
            run.report(val_loss=1.0)
        assert len(run.steps(50)) == 0
        assert list(run.steps(50)) == []


def test_tqdm_and_rich_take_them_as_they_are(tmp_path):
    shown, drawn = io.StringIO(), io.StringIO()
    with run_of(tmp_path) as run:
        for epoch in tqdm(run.epochs(3), file=shown):
            run.report(val_loss=2.0**-epoch)
        for epoch in track(run.epochs(6), console=Console(file=drawn, force_terminal=True)):
            run.report(val_loss=2.0**-epoch)
    assert "3/3" in shown.getvalue()
    assert "100%" in drawn.getvalue()


def test_the_bar_counts_all_passes_and_says_how_the_run_stands(tmp_path, capsys):
    with run_of(tmp_path) as run:
        for epoch in run.epochs(3, bar=True):
            run.report(val_loss=2.0**-epoch)
        first = capsys.readouterr().err
        for epoch in run.epochs(5, bar=True):
            run.report(val_loss=2.0**-epoch)
    assert "0/3" in first
    assert "3/3" in first
    assert "val_loss 0.125, best 0.125 (epoch 3)" in first
    second = capsys.readouterr().err
    assert "3/5" in second
    assert "2/5" not in second
    assert "5/5" in second


def test_its_last_line_says_why_the_run_has_stopped(tmp_path, capsys):
    with run_of(tmp_path) as run:
        for _ in run.epochs(50, bar=True):
            run.report(val_loss=1.0)
        last = capsys.readouterr().err.strip().splitlines()[-1].rpartition("\r")[2]
        assert "3/50" in last
        assert f"stopped: {run.stopped}" in last
        assert list(run.epochs(50, bar=True)) == []
    assert "stopped: no improvement over 1 for 2 reports" in capsys.readouterr().err


def test_a_loop_that_is_left_is_closed_with_its_bar(tmp_path, capsys):
    with run_of(tmp_path) as run:
        for _ in run.epochs(5, bar=True):
            run.report(val_loss=1.0)
            break
        assert "0/5" in capsys.readouterr().err
        assert [epoch for epoch in run.epochs(2)] == [2]  # noqa: C416


def test_without_tqdm_the_bar_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with run_of(tmp_path) as run:
        with pytest.raises(SettingError, match=r'bar=True needs tqdm: pip install "stopctl\[cli\]"'):
            list(run.epochs(2, bar=True))
        assert list(run.epochs(1)) == [1]
