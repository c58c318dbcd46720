"""`stopctl replay`, through the real command."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from typer.testing import CliRunner

from stopctl import Patience, StopctlError
from stopctl.cli.app import app
from support.logs import keras, our_run

RUNNER = CliRunner(env={"NO_COLOR": "1", "TERM": "dumb"})
LOSSES = [0.9, 0.5, 0.6, 0.55, 0.4, 0.45]


def call(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "stopctl.cli", "replay", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def inside(*arguments):
    """The same in this process."""
    return RUNNER.invoke(app, ["replay", *map(str, arguments)])


def test_it_tells_each_stop_with_its_sentence_and_the_means(tmp_path):
    keras(tmp_path, "a", "val_loss", LOSSES)
    done = call("a.csv", "--stop", "Patience(2)", "--stop", "Patience(3)", "--plot", "a.png", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    judged, heading, two, three, _, _, means, sum_two, sum_three, picture = done.stdout.splitlines()
    assert judged == (
        "judged: val_loss of a.csv, smaller is better; column and direction guessed by the name; "
        "6 values, epochs 1 to 6"
    )
    assert heading.split() == ["a.csv", "value", "share", "regret", "stopped"]
    assert " ".join(two.split()) == (
        "Patience(2) 0.5 67% 0.5000 epoch 4 of 6: no improvement over 0.5 for 2 reports"
    )
    assert " ".join(three.split()) == "Patience(3) 0.4 100% 0.0000 not stopped by epoch 6"
    assert " ".join(means.split()) == "rule stopped share regret regret regret"
    assert " ".join(sum_two.split()) == "Patience(2) 1 of 1 66.7% 0.5000 0.5000 0.5000"
    assert " ".join(sum_three.split()) == "Patience(3) 0 of 1 100.0% 0.0000 0.0000 0.0000"
    assert picture == "a.png"
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_json_has_the_same(tmp_path):
    path = keras(tmp_path, "a", "val_loss", LOSSES)
    told = json.loads(inside(path, "--stop", "Patience(2)", "--stop", "Patience(3)", "--json").stdout)
    two, three = told["outcomes"]
    assert two == {
        "curve": str(path), "metric": "val_loss", "mode": "min", "rule": "Patience(2)", "stopped": True,
        "unit": "epoch", "at": 4, "of": 6, "reports": 4, "value": 0.5, "share": pytest.approx(2 / 3),
        "regret": pytest.approx(0.5), "text": "no improvement over 0.5 for 2 reports", "cut": None,
    }  # fmt: skip
    assert told["curves"] == [
        {
            "curve": str(path), "format": "CSV", "metric": "val_loss", "mode": "min",
            "guessed": ["column", "direction"], "unit": "epoch", "places": [1, 2, 3, 4, 5, 6], "values": LOSSES,
            "planned": 6, "cut": None, "late": None, "notes": [],
        }
    ]  # fmt: skip
    assert (three["stopped"], three["text"]) == (False, "not stopped by epoch 6")
    assert [one["stopped"] for one in told["summary"]] == [1, 0]
    assert told["notes"] == []


def test_many_curves_are_summed_up_and_listed_when_asked(tmp_path):
    paths = [keras(tmp_path, f"c{i}", "val_loss", LOSSES) for i in range(41)]
    short, each = inside(*paths, "--stop", "Patience(2)"), inside(*paths, "--stop", "Patience(2)", "--each")
    assert f"c0.csv, {paths[1]}, {paths[2]} and 38 more, smaller is better" in short.stdout.splitlines()[0]
    assert short.stdout.splitlines()[0].endswith("; 41 curves of 6 values")
    assert len(short.stdout.splitlines()) == 1 + 3
    assert len(each.stdout.splitlines()) == 1 + 3 + 42 + 1


def test_several_curves_have_a_table_for_each_rule(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        keras(tmp_path, name, "val_loss", LOSSES)
    lines = inside("a.csv", "b.csv", "--stop", "Patience(2)", "--stop", "Patience(3)").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:8] if line.strip()] == [
        "Patience(2)", "a.csv", "b.csv", "Patience(3)", "a.csv", "b.csv",
    ]  # fmt: skip


def test_the_tables_fit_a_terminal_of_80_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    names = ["runs-with-a-long-name-01", "runs-with-a-long-name-02"]
    paths = [keras(tmp_path, name, "val_loss", LOSSES).name for name in names]
    out = inside(*paths, "--stop", "Patience(2) | RemainingGain(0.03)").stdout.partition("\n")[2]
    assert max(map(len, out.splitlines())) <= 80
    words = Counter(out.split())
    for word in ("no", "improvement", "over", "for", "reports", *paths):
        assert words[word] == (1 if word in paths else 2), word


def test_a_run_that_was_cut_and_lines_that_were_skipped_are_said_on_standard_error(tmp_path):
    run = our_run(tmp_path, "r", "val_loss", LOSSES, stop=Patience(2))
    path = keras(tmp_path, "a", "val_loss", LOSSES)
    path.write_text(path.read_text() + "7,0.")
    done = inside(run, path, "--stop", "Patience(1)", "--stop", "ProgressQuotient(0.5)")
    assert done.exit_code == 0
    assert "a.csv: 1 half-written line skipped" in done.stderr
    assert "1 curve was cut before the planned end: regret counts what was recorded alone" in done.stderr
    assert "ProgressQuotient(0.5) does not apply to 1 of the curves: the report has no 'loss'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.csv", "--stop", "Patienc(3)"], "did you mean Patience"),
        (["a.csv", "--stop", "__import__('os')"], "there is no '__import__'"),
        (["a.csv", "--stop", "Patience(3)", "--column", "x"], "has no column 'x'; it has: loss, val_loss"),
        (["a.csv", "b.csv", "--stop", "Patience(3)"], "mixed directions"),
        (["nothing.csv", "--stop", "Patience(3)"], "is not there"),
        (["a.csv", "--stop", "Patience(3)", "--where", "phase"], "such as --where phase=val"),
        (["a.csv", "--stop", "Patience(3)", "--restart", "no"], "write one of new-run, resume, goes-on"),
        (["a.csv", "--stop", "Patience(3)", "--empty", "0"], "write --empty nan"),
        (["a.csv", "--stop", "Patience(3)", "--by", "fold"], "has no column 'fold'"),
        (["a.csv", "--stop", "Patience(3)", "--format", "x"], "there is no such format"),
        (["empty", "--stop", "Patience(3)"], "holds no run"),
    ],
)
def test_bad_input_is_an_error_of_ours_of_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    keras(tmp_path, "a", "val_loss", LOSSES)
    keras(tmp_path, "b", "val_acc", LOSSES)
    error = inside(*arguments).exception
    assert isinstance(error, StopctlError)
    assert message in str(error)
    assert "\n" not in str(error)


def test_the_real_command_ends_with_code_2_and_no_traceback(tmp_path):
    done = call("nothing.csv", "--stop", "Patience(3)", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line == "stopctl: nothing.csv is not there"


def test_all_curves_are_written_with_their_places_and_cuts(tmp_path):
    run = our_run(tmp_path, "r", "val_loss", LOSSES, stop=Patience(2))
    path = keras(tmp_path, "a", "val_loss", LOSSES)
    inside(run, path, "--stop", "Patience(1)", "--csv", tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["curve"], row["epoch"], row["value"], row["cut"]) for row in rows[3:5]] == [
        (str(run), "4", "0.55", "stopped by patience"),
        (str(path), "1", "0.9", ""),
    ]
    assert len(rows) == 4 + 6


def test_standard_input_and_options_that_divide_a_table(tmp_path):
    rows = [f"{fold},{i},{v}" for fold in "xy" for i, v in enumerate(LOSSES, 1)]
    text = "\n".join(["fold,epoch,val_loss", *rows])
    command = ["replay", "-", "--stop", "Patience(2)", "--json"]
    told = json.loads(RUNNER.invoke(app, [*command, "--by", "fold"], input=text).stdout)
    assert [one["curve"] for one in told["curves"]] == ["standard input [fold=x]", "standard input [fold=y]"]
    told = json.loads(RUNNER.invoke(app, [*command, "--where", "fold=y"], input=text).stdout)
    assert [one["values"] for one in told["curves"]] == [LOSSES]
    assert "told apart by 'fold' (x, y)" in str(RUNNER.invoke(app, command, input=text).exception)


def test_the_help_says_what_regret_is():
    text = " ".join(inside("--help").stdout.replace("│", " ").split())
    assert "|best until the stop - best of all| / |median of the first three values - best of all|" in text
    assert "not stopped by epoch 17" in text


def test_a_rule_of_ones_own_is_replayed_and_tried(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from stopctl import StopPolicy\n"
        "@dataclass(frozen=True, repr=False)\n"
        "class Fourth(StopPolicy):\n"
        "    n: int\n"
        "    def met(self, memory, x, now):\n"
        "        return now.reports >= self.n\n"
        "    def sentence(self, numbers):\n"
        "        return f'{self.n} are enough'\n"
    )
    keras(tmp_path, "a", "val_loss", LOSSES)
    done = call("a.csv", "--rule", "mine:Fourth(4) | NonFinite()", "--json", cwd=tmp_path)
    (outcome,) = json.loads(done.stdout)["outcomes"]
    assert (outcome["rule"], outcome["text"]) == ("Fourth(4) | NonFinite()", "4 are enough")
    tried = subprocess.run(
        [sys.executable, "-m", "stopctl.cli", "suggest", "a.csv", "--rule", "mine:Fourth(5)", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Fourth(5) | NonFinite()" in [one["stop"] for one in json.loads(tried.stdout)["tried"]]


def test_more_is_unpacked_where_that_is_asked_for(tmp_path, stopctl):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"epoch,val_loss\n1,3\n2,2\n3,1\n" + b" " * 2_000_000))
    code, _, err = stopctl("replay", path, "--stop", "Patience(3)", "--unpack", "1")
    assert (code, "more than 1.0 MB when it is unpacked" in err) == (2, True)
    assert stopctl("replay", path, "--stop", "Patience(3)", "--unpack", "3")[0] == 0
