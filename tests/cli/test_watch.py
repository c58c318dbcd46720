from __future__ import annotations

import io
import itertools

from rich.console import Console

from stopctl.cli import watch as module
from support.ran import files_of, ran


def test_one_frame_has_the_curve_the_decisions_and_the_rules(tmp_path, stopctl):
    path = ran(tmp_path / "run")
    before = files_of(path)
    code, out, _ = stopctl("watch", path, "--once")
    assert (code, files_of(path)) == (0, before)
    assert "0.6 ┤" in out
    assert "0.3 ┤" in out
    assert "stop: no improvement over 0.3 for 3 reports" in out
    assert "Patience(3): 3 of 3 reports" in out


def test_without_a_terminal_each_report_is_a_line_and_it_ends_with_the_run(tmp_path, stopctl):
    path = ran(tmp_path / "run")
    code, out, _ = stopctl("watch", path)
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "step 0: the run begins"
    assert "epoch 5, step 50: val_loss 0.45; nothing was decided" in lines
    assert lines[-1] == "run  stopped: no improvement over 0.3 for 3 reports"


def test_on_a_terminal_the_frame_is_drawn_until_the_run_ends(tmp_path, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(module, "console", lambda: screen)
    module.watch([ran(tmp_path / "run")], once=False, interval=0.1)
    assert "no improvement over 0.3" in screen.file.getvalue()


def test_a_run_without_reports_has_no_curve(tmp_path, stopctl):
    code, out, _ = stopctl("watch", ran(tmp_path / "run", ()), "--once")
    assert code == 0
    assert "┤" not in out
    assert "Patience(3): waits for its first report" in out


def test_several_runs_are_for_the_page(tmp_path, stopctl):
    assert "with --html it serves the page" in stopctl.refused("watch", tmp_path, tmp_path)
    assert "there is no such directory" in stopctl.refused("watch", tmp_path / "none", "--html")


def test_the_longer_a_look_takes_the_rarer_they_are(tmp_path, monkeypatch, stopctl):
    path = ran(tmp_path / "run")
    clock, slept, states = itertools.count(0.0, 10.0), [], iter([True, True, True, False])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(module.time, "sleep", slept.append)
    monkeypatch.setattr(module, "_goes_on", lambda current: next(states))
    assert stopctl("watch", path, "--interval", "60")[0] == 0
    assert slept == [60.0, 80.0, 80.0]  # 4 times: 10 s of drawing, and then 10 s of reading, too
