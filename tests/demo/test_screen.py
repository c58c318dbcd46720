from __future__ import annotations

import pytest

from stopctl import Decision, Reason, Save, Stop
from stopctl.core.decision import Cause
from stopctl.demo.screen import Screen

BEST = Cause(Reason.BEST, "OnBest()", text="new best 0.25")
EVERY = Cause(Reason.EVERY, "Every(epochs=10)", text="every 10 epochs")
ENOUGH = Cause(Reason.PATIENCE, "Patience(5)", text="no improvement over 0.25 for 5 reports")


def _show(screen: Screen, *decisions: Decision, first: int = 1, completed: int = 0) -> None:
    with screen:
        screen.opened("some images", completed)
        for epoch, decision in enumerate(decisions, first):
            screen.epoch(epoch, batches=2)
            screen.batch()
            screen.batch()
            screen.reported(epoch, 0.5, 0.25, decision)


def test_not_a_terminal_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    _show(
        Screen("PyTorch"),
        Decision(),
        Decision(new_best=True, save=Save(1, (BEST,))),
        Decision(new_best=True, save=Save(2, (EVERY, BEST))),
        Decision(stop=Stop((ENOUGH,))),
    )
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.splitlines() == [
        "PyTorch",
        "images: some images",
        "epoch   1   training loss 0.5000   validation loss 0.2500",
        "epoch   2   training loss 0.5000   validation loss 0.2500   new best   saved",
        "epoch   3   training loss 0.5000   validation loss 0.2500   new best   saved: every 10 epochs",
        "epoch   4   training loss 0.5000   validation loss 0.2500",
        "stop: no improvement over 0.25 for 5 reports",
    ]


def test_a_resume_is_announced_once_with_its_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    _show(Screen("PyTorch"), Decision(), Decision(), first=4, completed=3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "resumed after epoch 3: goes on with epoch 4"
    assert sum("resumed" in line for line in lines) == 1


def test_a_finished_run_is_not_announced_as_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    _show(Screen("PyTorch"), completed=3)
    assert "resumed" not in capsys.readouterr().out


def test_closing_is_a_line_for_each_fact_and_long_ones_are_not_broken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen("PyTorch").closing({"end": "x" * 300, "best": "epoch 3 [bold]"})
    assert capsys.readouterr().out == f"end: {'x' * 300}\nbest: epoch 3 [bold]\n"


def test_all_goes_to_standard_error_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    _show(screen := Screen("PyTorch", error=True), Decision())
    screen.closing({"end": "now"})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 4


def test_a_terminal_gets_a_bar_a_panel_and_its_cursor_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    _show(screen := Screen("PyTorch"), Decision(new_best=True))
    screen.closing({"end": "now"})
    out = capsys.readouterr().out
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert "\x1b[1;32m   new best" in out
    assert "━" in out
    assert "╭" in out
    assert out.index(show) > out.index(hide)
    assert out.index(show) < out.index("some images")  # at once: a killed process could not do it later
