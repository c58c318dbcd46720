from __future__ import annotations

import json

from support.ran import files_of, ran


def test_each_run_is_a_line(tmp_path, stopctl):
    ran(tmp_path / "runs" / "one")
    ran(tmp_path / "runs" / "two", (0.5, 0.4))
    before = files_of(tmp_path)
    code, out, err = stopctl("ls", tmp_path / "runs")
    assert (code, err) == (0, "")
    assert files_of(tmp_path) == before
    head, one, *_ = out.splitlines()
    assert head.split() == ["run", "at", "best", "size", "age", "state"]
    assert one.split()[:4] == ["one", "epoch", "6", "0.3"]
    assert "stopped: no improvement over 0.3 for 3 reports" in one
    assert "interrupted: closed before its end" in out


def test_json_has_every_figure(tmp_path, stopctl):
    ran(tmp_path / "one", (0.5, float("nan")), stop=None)
    code, out, _ = stopctl("ls", tmp_path, "--json")
    told = json.loads(out)
    assert code == 0
    (run,) = told["runs"]
    assert (run["state"], run["value"], run["best"], run["best_epoch"]) == ("interrupted", "NaN", 0.5, 1)
    assert told["unreadable"] == []


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_shown(tmp_path, stopctl):
    ran(tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "run.json").write_text('{"format": 9, "writer": 1}')
    code, out, _ = stopctl("ls", tmp_path)
    assert code == 1
    one, two = out.splitlines()[1:3]
    assert "stopped: " in one
    assert "unreadable: " in two
    assert "update it" in out


def test_damage_is_counted_behind_the_reason(tmp_path, stopctl):
    path = ran(tmp_path / "one")
    next(path.glob("checkpoints/epoch-0003*/state.safetensors")).write_bytes(b"")
    code, out, _ = stopctl("ls", tmp_path)
    assert code == 0
    assert "(1 damaged checkpoint)" in " ".join(out.split())


def test_no_runs_and_no_folder_are_told(tmp_path, stopctl):
    code, out, _ = stopctl("ls", tmp_path)
    assert (code, out) == (0, f"no runs in or below {tmp_path}: a run is a folder with a run.json\n")
    code, _, err = stopctl("ls", tmp_path / "none")
    assert (code, err) == (2, f"stopctl: {tmp_path / 'none'}: there is no such folder\n")


def test_a_finished_run_needs_no_reason_but_its_damage_is_said(tmp_path, stopctl):
    path = ran(tmp_path / "one", (0.5, 0.4), planned=2)
    assert stopctl("ls", tmp_path)[1].splitlines()[1].rstrip().endswith("finished")
    next(path.glob("checkpoints/epoch-0001*/state.safetensors")).write_bytes(b"")
    assert stopctl("ls", tmp_path)[1].splitlines()[1].rstrip().endswith("finished: (1 damaged checkpoint)")


def test_a_list_fits_a_terminal_of_80_columns(tmp_path, monkeypatch, stopctl):
    monkeypatch.setenv("COLUMNS", "80")
    ran(tmp_path / "resnet18-cifar10-seed01")
    out = stopctl("ls", tmp_path)[1]
    assert max(map(len, out.splitlines())) <= 80
    assert len(out.splitlines()) <= 4
    assert {"resnet18-cifar10-seed01", "stopped:", "improvement", "reports"} <= set(out.split())
