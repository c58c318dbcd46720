from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

from rich.console import Console
from rich.text import Text

from stopctl.cli import message, output


def test_json_is_strict_and_names_what_is_not_finite(capsys):
    output.emit({"a": [math.nan, -math.inf, 1.5], "b": {"path": Path("x"), "none": None, "many": (1, True)}})
    text = capsys.readouterr().out
    assert json.loads(text, parse_constant=lambda name: 1 / 0) == {
        "a": ["NaN", "-Infinity", 1.5],
        "b": {"path": "x", "none": None, "many": [1, True]},
    }


def test_json_has_control_characters_escaped(capsys):
    output.emit({"a\x9b": "\x1b[31m\u2028\x7fü"})
    text = capsys.readouterr().out
    assert json.loads(text) == {"a\x9b": "\x1b[31m\u2028\x7fü"}
    assert text.removesuffix("\n").isprintable()


def test_spans_are_told_as_people_do():
    spans = [output.span(s) for s in (0.2, 119, 150, 7300, 200_000, None, math.inf)]
    assert spans == ["0 s", "119 s", "2 min", "2 h", "2 days", "", ""]


def test_where_nobody_looks_lines_have_a_fixed_width(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert output.console().width == output.PLAIN_WIDTH
    monkeypatch.setenv("COLUMNS", "60")
    assert output.console().width == 60


def test_control_characters_are_shown_as_text_and_styles_stay(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = output.console()
    rows = output.table("name", "why")
    rows.add_row("name", "b\x1b]0;title")
    out.print(rows)
    out.print(Text("a\x9b31m\nb"))
    output.say(out, "one\x1b[31m\ntwo", "bold")
    text = capsys.readouterr().out
    styled = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert styled != text
    assert [word for word in ("b\\x1b]0", "a\\x9b31m\nb\n", "one\\x1b[31m\\ntwo") if word not in styled] == []
    assert all(line.isprintable() for line in styled.split("\n"))


def test_errors_are_one_line_with_the_file_first():
    assert message(PermissionError(13, "Permission denied", "run.json")) == "run.json: Permission denied"
    assert message(ValueError("one:\n  two\n")) == "one:; two"
    assert message(OSError("odd")) == "odd"


def test_short_names_are_not_folded_and_nothing_is_cut_off(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    why = "a reason that is so long that it is folded and goes on until it is over"
    for name in ("n" * output.NAME, "n" * 100):
        rows = output.table("run", "state", fold=("run", "state"), names=[name])
        rows.add_row(name, why)
        output.console().print(rows)
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) == 80
        assert out.count("n") == len(name) + why.count("n") + 1
        assert (name in out) is (len(name) == output.NAME)


def test_a_narrow_terminal_folds_short_names_rather_than_cut_figures(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "50")
    heads = [f"mean {i}" for i in range(4)]
    rows = output.table("rule", *heads, right=heads, fold=("rule",), names=["Patience(2, min_delta=0.001)"])
    rows.add_row("Patience(2, min_delta=0.001)", *["12.345%"] * 4)
    output.console().print(rows)
    assert capsys.readouterr().out.count("12.345%") == 4


def test_notes_beyond_the_tenth_are_counted(capsys):
    output.tell_notes([f"note {i}" for i in range(12)])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "note 0"
    assert lines[10:] == ["and 2 more notes: --json has all"]


def test_sentences_are_one_line_where_nobody_looks(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    output.say(output.console(), "word " * 20, indent=2)
    assert capsys.readouterr().out.splitlines() == ["  " + "word " * 20]


def test_sentences_are_folded_between_words_in_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out = Console(force_terminal=True, width=18, file=io.StringIO(), color_system=None)
    output.say(out, "one two three four five", indent=2)
    assert [line.rstrip() for line in out.file.getvalue().splitlines()] == ["  one two three", "  four five"]
