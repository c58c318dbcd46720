"""`stopctl suggest`, through the real command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from stopctl import Patience, StopctlError
from stopctl.cli.app import app
from stopctl.runs.ruletext import parse_stop
from support.logs import FORMATS, keras, our_run, write
from support.made import losses

RUNNER = CliRunner(env={"NO_COLOR": "1", "TERM": "dumb"})


def inside(*arguments):
    return RUNNER.invoke(app, ["suggest", *map(str, arguments)])


def test_every_format_gives_the_same_recommendation_within_the_bound(tmp_path):
    """The first through the real executable."""
    told = {}
    for name, made in FORMATS.items():
        paths = [made(tmp_path / name, f"r{seed:02}", "val_loss", losses(seed, 40)) for seed in range(10)]
        arguments = [*map(str, paths), "--max-regret", "0.02", "--holdout", "0.5", "--json"]
        if told:
            text = inside(*arguments).stdout
        else:
            command = [sys.executable, "-m", "stopctl.cli", "suggest", *arguments]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        told[name] = json.loads(text)
    first = told["keras"]
    assert first["regret"] <= 0.02
    assert first["share"] < 1
    assert first["held_out"]["runs"] == first["runs"] == 5
    assert 0 < first["held_out"]["share"] <= 1
    for name, one in told.items():
        for key in (
            "stop",
            "share",
            "regret",
            "held_out",
            "regret_interval",
            "same_choice_in_draws",
            "left_out",
        ):
            assert one[key] == first[key], (name, key)
    assert told["our_run"]["saves"]["saves"] == 10
    assert first["saves"] is None


def test_what_is_printed_can_be_pasted(tmp_path):
    paths = [our_run(tmp_path, f"r{seed}", "val_acc", [1 - v for v in losses(seed, 30)]) for seed in range(4)]
    out = inside(*paths, "--max-regret", "0.05", "--mtbf-hours", "24").stdout
    assert "few runs (4): take this as a first guess, and add runs" in out
    assert "how sure: in " in out
    assert "chosen so on a part and tried on the others: " in out
    assert (
        "assumed: training waits for all of a save, saving may take 3.5% of the time, one failure in 24 hours"
        in out
    )
    *imports, _, call = out.strip().splitlines()[-4:]
    found = {}
    code = "\n".join(line for line in imports if line.startswith("from stopctl"))
    exec(f"{code}\nfound.update(dict({call.removeprefix('Run(..., ').removesuffix(')')}))", {"found": found})
    assert set(found) == {"goal", "stop", "save"}
    assert f"stop={found['stop']!r}" in out.splitlines()
    assert parse_stop(repr(found["stop"])) == found["stop"]


def test_cut_runs_are_left_out_and_said(tmp_path):
    whole = [our_run(tmp_path, f"w{seed}", "val_loss", losses(seed, 30)) for seed in range(3)]
    cut = [our_run(tmp_path, f"c{seed}", "val_loss", losses(seed, 30), stop=Patience(2)) for seed in range(2)]
    out = inside(*whole, *cut).stdout
    assert "left out, as what they would have won is not known: 2 stopped by patience" in out
    assert "on 3 runs: trains " in out
    assert json.loads(inside(*whole, *cut, "--json", "--keep-cut").stdout)["runs"] == 5


def test_a_log_that_begins_late_is_left_out_and_said(tmp_path):
    paths = [keras(tmp_path, f"r{seed}", "val_loss", losses(seed, 30)) for seed in range(3)]
    late = write(
        tmp_path / "late.csv", "\n".join(["epoch,val_loss", *(f"{i},{1 / i}" for i in range(13, 40))])
    )
    done = inside(*paths, late)
    assert f"{late}: begins at epoch 13: what came before is not in it" in done.stderr
    assert "left out, as what they would have won is not known: 1 begins at epoch 13" in done.stdout
    assert json.loads(inside(*paths, late, "--json").stdout)["runs"] == 3


def test_where_no_rule_is_good_enough_the_whole_run_is_recommended(tmp_path):
    paths = [keras(tmp_path, f"r{seed}", "val_loss", [10.0 - i for i in range(10)]) for seed in range(3)]
    lines = inside(*paths, "--max-regret", "0").stdout.splitlines()
    assert lines[0].startswith("judged: val_loss of ")
    assert lines[0].endswith("; column and direction guessed by the name; 3 curves of 10 values")
    assert lines[1] == "no rule of the grid keeps the mean regret within 0 for less: train to the end"
    assert lines[2] == "stop=NonFinite()"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.csv", "--max-regret", "-1"], "max_regret=-1"),
        (["a.csv", "--holdout", "1"], "holdout=1"),
        (["a.csv", "--holdout", "0.5"], "1 run is too few to hold out"),
        (["a.csv", "--mtbf-hours", "0"], "write the hours between two failures"),
        (["a.csv", "--mode", "up"], "mode is 'up'"),
        (["nothing"], "nothing is not there"),
    ],
)
def test_bad_input_is_an_error_of_ours_of_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    keras(tmp_path, "a", "val_loss", losses(0))
    error = inside(*arguments).exception
    assert isinstance(error, StopctlError)
    assert message in str(error)
    assert "\n" not in str(error)
