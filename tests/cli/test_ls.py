from __future__ import annotations

import json
import shutil

import pytest

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


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """A thousand runs, made of the files of one: of each ten one has another goal."""
    folder = tmp_path_factory.mktemp("thousand")
    path = ran(folder / "model", notes={"lr": 0.0, "seed": 0})
    meta = json.loads((path / "run.json").read_text())
    journal = "\n".join(
        line for line in (path / "journal.jsonl").read_text().split("\n") if '"saved"' not in line
    )
    shutil.rmtree(path)
    for i in range(1000):
        (folder / f"run-{i:04}").mkdir()
        goal = {"metric": "val_loss", "mode": "max" if i % 10 == 0 else "min"}
        notes = {"lr": (i % 7) / 10, "seed": i}
        told = {**meta, "goal": goal, "notes": notes, "openings": [{"epoch": 0, "step": 0, "notes": notes}]}
        (folder / f"run-{i:04}" / "run.json").write_text(json.dumps(told))
        lines = journal.replace('"val_loss":0.3}', f'"val_loss":{0.2 + i / 10**5}}}')
        (folder / f"run-{i:04}" / "journal.jsonl").write_text(lines)
    return folder


def test_the_best_of_a_thousand_runs_are_found(thousand, monkeypatch, stopctl):
    monkeypatch.delenv("COLUMNS")
    _, out, err = stopctl("ls", thousand, "--top", "3", "--notes", "lr,seed", "--metrics", "val_loss")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["run", "goal", "at", "best", "val_loss", "lr", "seed", "size", "age", "state"]
    assert [row[0] for row in rows[1:]] == [f"run-{i:04}" for i in (0, 10, 20, 1, 2, 3)]
    assert rows[4][1:9] == ["min", "val_loss", "epoch", "6", "0.20001", "0.20001", "0.1", "1"]
    assert err == "the goals differ, and are sorted each by itself: max val_loss, min val_loss\n"
    conditions = ("--where", "lr=2e-1", "--where", "seed>=900", "--where", "seed!=905")
    told = json.loads(stopctl("ls", thousand, *conditions, "--sort", "seed", "--reverse", "--json")[1])
    assert [run["notes"]["seed"] for run in told["runs"]] == [
        i for i in range(999, 899, -1) if i % 7 == 2 and i != 905
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sort", "rate"], "no run has the note 'rate'; there are: lr"),
        (["--where", "rate=1"], "no run has the note 'rate'; there are: lr"),
        (["--metrics", "acc"], "no run has the metric 'acc'; there are: val_loss"),
        (["--state", "done"], "--state done: write one of new, running, stopped"),
        (["--where", "lr"], "lr: write a note and a value, such as lr=0.1"),
    ],
)
def test_what_no_run_has_is_refused_with_what_there_is(arguments, said, tmp_path, stopctl):
    ran(tmp_path / "one", notes={"lr": 0.1})
    assert said in stopctl.refused("ls", tmp_path, *arguments)


def test_states_choose_and_none_is_told(tmp_path, stopctl):
    ran(tmp_path / "one")
    ran(tmp_path / "two", (0.5, 0.4))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    code, out, _ = stopctl("ls", tmp_path, "--state", "stopped,new")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["run", "one"])
    assert stopctl("ls", tmp_path, "--state", "new")[1] == "no such run: there are 2 runs\n"
    code, out, _ = stopctl("ls", tmp_path, "--state", "unreadable")
    assert (code, [line.split()[0] for line in out.splitlines()][:2]) == (1, ["run", "bad"])


def test_a_run_without_a_usable_checkpoint_is_exit_code_1_here_and_in_show(tmp_path, stopctl):
    path = ran(tmp_path / "one")
    shutil.rmtree(path / "checkpoints")
    assert stopctl("ls", tmp_path)[0] == stopctl("show", path)[0] == 1


@pytest.mark.parametrize("columns", [40, 60])
def test_a_narrow_terminal_cuts_no_number(columns, tmp_path, monkeypatch, stopctl):
    monkeypatch.setenv("COLUMNS", str(columns))
    ran(tmp_path / "one", (0.123456, 0.234561), notes={"lr": 0.000123457, "text": "\x1b[31mred"})
    out = stopctl("ls", tmp_path, "--notes", "lr,text")[1]
    assert max(map(len, out.splitlines())) <= columns
    for whole in ("epoch 2", "0.123456", "0.000123457", "\\x1b[31mred", "interrupted"):
        assert whole in out
    assert all(line.isprintable() for line in out.splitlines())


@pytest.mark.parametrize("arguments", [["--sort", "lr"], ["--where", "lr<0.1"], ["--notes", "lr"]])
def test_a_note_is_refused_where_no_run_has_any(arguments, tmp_path, stopctl):
    ran(tmp_path / "one")
    code, _, err = stopctl("ls", tmp_path, *arguments)
    assert (code, "no run has the note 'lr'; there are: none" in err) == (2, True)
    (tmp_path / "empty").mkdir()
    assert stopctl("ls", tmp_path / "empty", *arguments)[0] == 0
