"""Lines on standard error where nobody has configured logging: their form, and when there are none."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from tqdm import tqdm

from stopctl.sinks import stderr

log = logging.getLogger("stopctl")


@pytest.fixture
def alone(monkeypatch):
    """Called in the test, it has our logger be as in an application without logging."""
    return lambda: monkeypatch.setattr(log, "propagate", False)


def test_a_handler_of_the_applications_silences_ours(alone, capsys):
    alone()
    assert not stderr.is_configured()
    handler = logging.NullHandler()
    log.addHandler(handler)
    try:
        assert stderr.is_configured()
        log.warning("heard elsewhere")
    finally:
        log.removeHandler(handler)
    assert stderr.HANDLER not in logging.getLogger().handlers
    assert capsys.readouterr().err == ""


def test_lines_and_warnings_have_one_form_and_steer_no_terminal(alone, capsys):
    alone()
    log.warning("%s: two\nlines \x1b[31m", "run")
    log.info("not by default")
    stderr.print_line("a line")
    assert capsys.readouterr().err == "stopctl: run: two\nlines \\x1b[31m\nstopctl: a line\n"


@pytest.mark.parametrize("how", ["level", "disabled", "all"])
def test_who_silences_our_logger_is_heard(alone, capsys, monkeypatch, how):
    alone()
    if how == "level":
        monkeypatch.setattr(log, "level", logging.WARNING)
    elif how == "disabled":
        monkeypatch.setattr(log, "disabled", True)
    else:
        monkeypatch.setattr(log.manager, "disable", logging.INFO)
    stderr.print_line("a line")
    assert capsys.readouterr().err == ""


def test_lines_wait_as_long_as_somebody_elses_is_unfinished(alone, capsys):
    alone()
    waiting = []
    with stderr.waiting_lines(waiting):
        log.warning("a warning")
        stderr.print_line("a line")
        assert capsys.readouterr().err == ""
    stderr.print_lines(waiting)
    assert waiting == []
    assert capsys.readouterr().err == "stopctl: a warning\nstopctl: a line\n"


def test_a_bar_of_tqdm_is_not_torn(alone, monkeypatch):
    alone()
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    with tqdm(total=2, file=screen, mininterval=0) as bar:
        bar.update()
        stderr.print_line("a line")
        drawn = screen.getvalue()
    before, line = drawn[: drawn.index("stopctl: ")], drawn[drawn.index("stopctl: ") :]
    assert before.endswith(("\r", "\n"))
    assert line.startswith("stopctl: a line\n\r 50%")


@pytest.mark.parametrize("stream", [None, "closed"])
def test_no_stream_is_no_error(alone, monkeypatch, stream):
    alone()
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", None if stream is None else closed)
    stderr.print_line("a line")
    stderr.print_lines(["a line"])
