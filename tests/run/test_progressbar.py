"""A loop's progress: in a terminal, in a notebook, in a log file."""

from __future__ import annotations

import io
import sys
import types

import pytest

from stopctl import Patience, Run
from stopctl.run.progressbar import EVERY, Lines, Notebook, Terminal, best_surface, told


class Shown:
    def __init__(self):
        self.states = []
        self.closed = 0

    def show(self, done, total, text):
        self.states.append((done, total, text))

    def close(self):
        self.closed += 1


def passes(first, last, left=None):
    try:
        yield from range(first, last + 1)
    finally:
        if left is not None:
            left.append(True)


def test_every_completed_pass_is_shown():
    shown = Shown()
    assert list(told(passes(3, 5), 5, "epoch", lambda: "fine", shown)) == [3, 4, 5]
    assert shown.states == [(2, 5, "fine"), (3, 5, "fine"), (4, 5, "fine"), (5, 5, "fine")]
    assert shown.closed == 1


def test_a_loop_that_is_left_closes_the_passes_and_the_bar():
    shown, left = Shown(), []
    loop = told(passes(1, 5, left), 5, "epoch", lambda: "", shown)
    next(loop)
    loop.close()
    assert left == [True]
    assert shown.closed == 1
    assert shown.states == [(0, 5, "")]


def test_a_finished_run_shows_nothing():
    shown = Shown()
    assert list(told(passes(6, 5), 5, "epoch", lambda: "", shown)) == []
    assert shown.states == []


def test_a_log_file_gets_the_first_line_the_last_and_few_between():
    written, now = [], [0.0]
    lines = Lines("step", written.append, lambda: now[0])
    for done in range(101):
        lines.show(done, 100, f"val_loss {done}")
        now[0] += EVERY / 40
    lines.close()
    lines.close()
    assert written == [
        "step 0/100  val_loss 0",
        "step 40/100  val_loss 40",
        "step 80/100  val_loss 80",
        "step 100/100  val_loss 100",
    ]


def test_what_is_no_terminal_gets_lines(monkeypatch, capsys):
    surface = best_surface("epoch")
    assert isinstance(surface, Lines)
    surface.show(1, 2, "")
    assert capsys.readouterr().err == "epoch 1/2\n"


def test_a_terminal_gets_a_bar_and_lines_where_rich_is_not_installed(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(best_surface("epoch"), Terminal)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(best_surface("epoch"), Lines)


def test_the_bar_shows_count_and_text():
    from rich.console import Console

    out = io.StringIO()
    bar = Terminal("epoch", Console(file=out, force_terminal=True, width=100))
    bar.close()  # nothing was shown
    bar.show(0, 4, "")
    bar.show(3, 4, "val_loss [0.25]")
    bar.close()
    assert "3/4" in out.getvalue()
    assert "val_loss [0.25]" in out.getvalue()


def test_a_notebook_gets_one_cell_that_is_replaced(monkeypatch):
    cells = []

    class Handle:
        def update(self, page):
            cells[-1] = page

    def display(page, display_id):
        assert display_id is True
        cells.append(page)
        return Handle()

    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(HTML=str, display=display))
    surface = best_surface("epoch")
    assert isinstance(surface, Notebook)
    surface.show(0, 4, "")
    surface.show(2, 4, "loss <0.5>")
    surface.close()
    assert len(cells) == 1
    assert 'value="2" max="4"' in cells[0]
    assert "loss &lt;0.5&gt;" in cells[0]


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_a_run_tells_how_it_stands(tmp_path, capsys, unit):
    losses = [0.5, float("nan"), 0.75, 0.75]
    with Run(tmp_path / "run", state={"w": 0.0}, stop=Patience(2)) as run:
        loop = run.epochs(9, bar=True) if unit == "epoch" else run.steps(9, bar=True)
        for number in loop:
            run.report(val_loss=losses[number - 1])
    assert run.stopped is not None
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"{unit} 0/9"
    assert told[-1] == f"{unit} 3/9  val_loss 0.75, best 0.5 ({unit} 1)"


def test_a_run_without_a_finite_value_says_so(tmp_path, capsys):
    with Run(tmp_path / "run", state={"w": 0.0}, stop=None) as run:
        for _ in run.epochs(1, bar=True):
            run.report(val_loss=float("nan"))
    assert capsys.readouterr().err.splitlines()[-1] == "epoch 1/1  val_loss NaN, no finite value yet"
