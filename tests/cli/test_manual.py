from __future__ import annotations

import json

import pytest

from stopctl import Run
from stopctl.runs import standing as holders
from stopctl.store import Reader
from support.ran import ran

NAME = "epoch-0004-step-000000040-w0001"


def pinned(path):
    return [info.name for info in Reader(path).list().good if info.pinned]


def test_a_checkpoint_is_pinned_and_unpinned(tmp_path, stopctl):
    path = ran(tmp_path / "run")
    assert stopctl("pin", path, NAME) == (0, f"{NAME} is pinned: it is never deleted\n", "")
    assert pinned(path) == [NAME]
    assert stopctl("unpin", path, NAME) == (0, f"{NAME} is not pinned any more\n", "")
    assert pinned(path) == []
    assert json.loads(stopctl("pin", path, NAME, "--json")[1]) == {"name": NAME, "pinned": True}


def test_a_name_that_is_not_there_is_one_line_that_lists_what_is(tmp_path, stopctl):
    code, out, err = stopctl("pin", ran(tmp_path / "run"), "final")
    assert (code, out) == (2, "")
    assert "has no checkpoint 'final'; its newest are: epoch-0003" in err


@pytest.mark.parametrize("command", ["pin", "unpin"])
@pytest.mark.parametrize(("which", "epoch"), [("best", 3), ("latest", 6)])
def test_the_best_and_the_latest_need_no_name(command, which, epoch, tmp_path, stopctl):
    path = ran(tmp_path / "run")
    told = json.loads(stopctl(command, path, which, "--json")[1])
    name = f"epoch-{epoch:04}-step-{epoch * 10:09}-w0001"
    assert told == {"name": name, "pinned": command == "pin"}
    assert pinned(path) == ([name] if command == "pin" else [])


def test_a_label_goes_before_what_a_word_means_and_none_is_told(tmp_path, stopctl):
    with Run(tmp_path / "run", state={}, stop=None, save=None) as run:
        for _ in run.epochs(2):
            run.report(val_loss=float("nan"))
            run.save("latest")
            break
    assert json.loads(stopctl("pin", tmp_path / "run", "latest", "--json")[1])["name"].startswith(
        "epoch-0001"
    )
    error = f"{tmp_path / 'run'} has no checkpoint with a finite value, so there is no best one"
    assert stopctl.refused("pin", tmp_path / "run", "best") == error


def test_a_run_that_nobody_holds_is_left_alone(tmp_path, stopctl):
    path = ran(tmp_path / "run")
    writer = Reader(path).meta["writer"]
    code, out, _ = stopctl("unlock", path)
    assert (code, out) == (0, f"{path} is not open in any process: nothing is to be unlocked\n")
    assert json.loads(stopctl("unlock", path, "--json")[1])["unlocked"] is False
    assert Reader(path).meta["writer"] == writer
    code, out, _ = stopctl("unlock", path, "--yes")
    assert (code, out) == (0, "taken from nobody: the next process that opens the run is writer 3\n")


def test_unlocking_asks_and_takes_the_run_from_its_writer(tmp_path, monkeypatch, stopctl):
    path = ran(tmp_path / "run")
    held = holders.Holder(4711, "elsewhere", "then")
    monkeypatch.setattr(holders, "holder", lambda directory: held)
    answers = iter(["n", "y"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(answers))
    monkeypatch.setattr("typer.confirm", lambda text, err: input(text) == "y")
    code, _, err = stopctl("unlock", path)
    assert code == 1
    assert "is open in process 4711 on elsewhere (since then)" in err
    assert Reader(path).meta["writer"] == 1
    assert stopctl("unlock", path)[0] == 0
    assert Reader(path).meta["writer"] == 2
    told = json.loads(stopctl("unlock", path, "--yes", "--json")[1])
    assert (told["held_by"]["pid"], told["writer"]) == (4711, 3)


def test_a_run_open_in_this_very_process_is_taken_like_any_other(tmp_path, stopctl, caplog):
    with Run(tmp_path / "run", state={}, durability="process"):
        assert stopctl("unlock", tmp_path / "run", "--yes")[0] == 0
    assert "was taken over: this run wrote nothing more" in caplog.text
