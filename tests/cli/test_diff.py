from __future__ import annotations

import json

import pytest

from support.ran import ran


@pytest.fixture
def two(tmp_path):
    """Two runs that differ in a note, a rule and the program's arguments."""
    paths = [ran(tmp_path / name, notes={"lr": lr, "seed": 1}) for name, lr in (("a", 0.1), ("b", 0.3))]
    for i, path in enumerate(paths):
        meta = json.loads((path / "run.json").read_text())
        meta["program"] = {
            "argv": ["train.py", f"--n={i}\x1b[31m"],
            "git": {"commit": "c" * 40, "dirty": i == 1},
        }
        (path / "run.json").write_text(json.dumps(meta))
    return paths


def test_only_what_differs_is_shown_unless_all_is_asked_for(two, stopctl):
    code, out, err = stopctl("diff", *two)
    rows = [line.split() for line in out.splitlines()]
    assert (code, err, rows[0]) == (0, "", ["a", "b"])
    assert ["lr", "0.1", "0.3"] in rows
    assert ["argv", "train.py", "--n=0\\x1b[31m", "train.py", "--n=1\\x1b[31m"] in rows
    assert ["git.dirty", "False", "True"] in rows
    assert "seed" not in out
    assert all(line.isprintable() for line in out.splitlines())
    every = [line.split() for line in stopctl("diff", *two, "--all")[1].splitlines()]
    assert ["seed", "1", "1"] in every
    assert ["best", "0.3", "0.3"] in every


def test_json_has_the_values_as_they_were_saved(two, stopctl):
    told = json.loads(stopctl("diff", *two, "--json")[1])
    assert {"group": "notes", "name": "lr", "values": [0.1, 0.3], "differs": True} in told["facts"]


def test_a_narrow_terminal_gets_lines(two, monkeypatch, stopctl):
    monkeypatch.setenv("COLUMNS", "30")
    lines = stopctl("diff", *two)[1].splitlines()
    assert max(map(len, lines)) <= 30
    assert lines[lines.index("  lr") + 1 :][:2] == ["  a 0.1", "  b 0.3"]


def test_runs_that_do_not_differ_and_what_is_no_run_are_told(two, tmp_path, stopctl):
    assert stopctl("diff", two[0], two[0])[1].endswith(" do not differ; --all shows what they are\n")
    assert "is no run" in stopctl.refused("diff", two[0], tmp_path)


def test_runs_are_called_by_their_folders_wherever_one_stands(two, monkeypatch, stopctl):
    monkeypatch.chdir(two[0])
    assert stopctl("diff", ".", "../b")[1].splitlines()[0].split() == ["a", "b"]


def test_a_note_that_is_called_seconds_is_no_time(tmp_path, stopctl):
    paths = [ran(tmp_path / name, notes={"seconds": value}) for name, value in (("a", 0.5), ("b", 0.25))]
    rows = [line.split() for line in stopctl("diff", *paths)[1].splitlines()]
    assert ["seconds", "0.5", "0.25"] in rows
