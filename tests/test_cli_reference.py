"""The reference of all commands is made of the commands themselves."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from stopctl.cli.app import app

DOCS = Path(__file__).parents[1] / "docs"
PAGE, SHOWN = DOCS / "reference" / "commands.md", DOCS / "cli.md"
SCRIPT = runpy.run_path(str(DOCS / "cli_reference.py"))
put_into, reference = SCRIPT["put_into"], SCRIPT["reference"]


def test_the_page_has_every_command_and_option_as_it_is():
    text = PAGE.read_text("utf-8")
    assert put_into(text) == text


def test_every_command_is_in_the_reference_and_shown_on_the_page():
    shown = SHOWN.read_text("utf-8")
    for one in app.registered_commands:
        assert f"## `stopctl {one.callback.__name__}" in reference()
        assert f"stopctl {one.callback.__name__}" in shown


def test_options_are_written_as_typer_takes_them():
    text = reference()
    assert text.count("| `--json` | Print one JSON object instead. |") == 1
    assert "Every command but `demo`, `watch` takes `--json` so." in text
    assert "| `--keep RULE` | What to keep, as in Python: Last(2) \\| Best(1). Required. |" in text
    assert "| `--epochs INTEGER` | Train for at most so many epochs. Default: `50`. |" in text
    assert "| `--framework torch\\|tensorflow\\|both` |" in text


def test_a_page_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="has no <!-- reference"):
        put_into("# Page\n")
