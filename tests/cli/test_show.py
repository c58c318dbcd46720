from __future__ import annotations

import json

import pytest

from stopctl import Patience, Run, StopPolicy
from stopctl.store import manual
from support.ran import files_of, ran


def test_a_run_is_shown_with_checkpoints_rules_and_notes(tmp_path, stopctl):
    path = ran(tmp_path / "mnist", notes={"batch size": 128})
    manual.pin(path, "epoch-0003-step-000000030-w0001")
    before = files_of(path)
    code, out, err = stopctl("show", path)
    assert (code, err) == (0, "")
    assert files_of(path) == before
    assert "mnist  stopped: no improvement over 0.3 for 3 reports" in out
    assert "val_loss 0.6, best 0.3 in epoch 3" in out
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("epoch-")}
    assert "best pinned: new best 0.3" in rows["epoch-0003-step-000000030-w0001"]
    assert "latest" in rows["epoch-0006-step-000000060-w0001"]
    assert "every 2 epochs; the run stops" in rows["epoch-0006-step-000000060-w0001"]
    assert "  Patience(3): 3 of 3 reports without improvement over 0.3 (met)" in out
    assert "  batch size: 128" in out


def test_control_characters_of_notes_and_reasons_are_shown_as_text(tmp_path, stopctl):
    path = ran(tmp_path / "run", notes={"k\x1b[2J": "\x1b]0;title\x07\x9b31m\n  seed: 3"})
    journal = path / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"new best 0.3"', '"\\u001b[31mred"'))
    code, out, _ = stopctl("show", path)
    assert code == 0
    assert "\n  k\\x1b[2J: \\x1b]0;title\\x07\\x9b31m\\n  seed: 3\n" in out
    assert "best: \\x1b[31mred" in out
    assert all(line.isprintable() for line in out.split("\n"))


def test_the_notes_are_those_that_trained_and_what_they_were_before(tmp_path, stopctl):
    def train(epochs, until=None, **notes):
        with Run(tmp_path / "run", state={}, stop=None, notes=notes) as run:
            for epoch in run.epochs(epochs):
                run.report(val_loss=1.0)
                if epoch == until:
                    break

    train(4, 2, lr=0.1, seed=1)
    train(2, lr=0.3)  # finished: it trains nothing
    train(4, lr=0.2, seed=1, more="x")
    _, out, _ = stopctl("show", tmp_path / "run")
    assert "  lr: 0.2 (0.1 until epoch 2)\n  seed: 1\n  more: x (none until epoch 2)\n" in out
    told = json.loads(stopctl("show", tmp_path / "run", "--json")[1])
    assert told["notes"] == {"lr": 0.2, "seed": 1, "more": "x"}
    assert told["notes_before"] == [{"epoch": 0, "step": 0, "notes": {"lr": 0.1, "seed": 1}}]
    openings = json.loads((tmp_path / "run" / "run.json").read_text())["openings"]
    assert [(each["epoch"], each["notes"]["lr"]) for each in openings] == [(0, 0.1), (2, 0.3), (2, 0.2)]


def test_json_has_the_same(tmp_path, stopctl):
    path = ran(tmp_path / "mnist", notes={"batch size": 128})
    _, out, _ = stopctl("show", path, "--json")
    told = json.loads(out)
    assert told["notes"] == {"batch size": 128}
    assert told["checkpoints"] == len(told["checkpoint_list"]) == 3
    assert [one["tags"] for one in told["checkpoint_list"]] == [["best"], [], ["latest"]]
    assert told["closeness"][0].endswith("(met)")
    assert (told["rules"]["stop"], told["lr_drops"], told["not_replayed"]) == ("Patience(3)", [], [])


def test_lowered_learning_rates_are_listed(tmp_path, stopctl):
    path = ran(tmp_path / "run")
    line = {
        "event": "report",
        "writer": 1,
        "epoch": 6,
        "step": 61,
        "metrics": {"val_loss": 0.6},
        "lr_factor": 0.5,
    }
    with (path / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps(line) + "\n")
    _, out, _ = stopctl("show", path)
    assert "learning-rate drops\n  epoch 6, step 61: times 0.5" in out


def test_a_best_value_inside_an_epoch_is_told_with_its_step(tmp_path, stopctl):
    path = ran(tmp_path / "run")
    line = {"event": "report", "writer": 1, "epoch": 6, "step": 63, "inside": True}
    with (path / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps({**line, "metrics": {"val_loss": 0.1}}) + "\n")
    _, out, _ = stopctl("show", path)
    assert "val_loss 0.1, best 0.1 in epoch 6, step 63\n" in out


def test_damage_and_garbled_lines_are_said(tmp_path, stopctl):
    path = ran(tmp_path / "run")
    next(path.glob("checkpoints/epoch-0003*/state.safetensors")).write_bytes(b"")
    with (path / "journal.jsonl").open("a") as journal:
        journal.write('{"event": "re\n')
    code, out, _ = stopctl("show", path)
    assert code == 0
    assert "damaged: epoch-0003-step-000000030-w0001: state.safetensors: 0 bytes" in out
    assert "1 line of the journal cannot be read, as a crash leaves them: skipped" in out


def test_folders_and_several_runs_are_shown_and_what_cannot_be_read_is_named(tmp_path, stopctl):
    for name in ("a", "b"):
        ran(tmp_path / "runs" / name)
    (tmp_path / "empty").mkdir()
    code, out, err = stopctl("show", tmp_path / "runs")
    assert (code, err, [line for line in out.splitlines() if "  stopped: " in line]) == (
        0, "", [f"{name}  stopped: no improvement over 0.3 for 3 reports" for name in "ab"],
    )  # fmt: skip
    code, out, err = stopctl("show", tmp_path / "runs" / "b", tmp_path / "empty", "--json")
    told = json.loads(out)
    assert (code, [one["state"] for one in told["runs"]]) == (1, ["stopped"])
    assert told["left_out"] == [f"left out: {tmp_path / 'empty'} is no run: it has no run.json; it is empty"]


@pytest.mark.parametrize(
    "command",
    [["show"], ["explain"], ["verify"], ["watch", "--once"], ["unlock"], ["prune", "--keep", "Last(1)"]],
)
@pytest.mark.parametrize(
    ("meta", "said"),
    [
        (None, "is no run: it has no run.json"),
        ('{"format": 9, "writer": 1}', "has format 9, this stopctl reads 1: update it"),
        ("{", "run.json"),
    ],
)  # fmt: skip
def test_what_is_no_run_is_one_line_and_exit_code_2(command, meta, said, tmp_path, stopctl):
    if meta is not None:
        (tmp_path / "run.json").write_text(meta)
    assert said in stopctl.refused(*command, tmp_path)


def test_a_rule_of_ones_own_is_told_as_it_told_itself(tmp_path, stopctl):
    class Doubled(StopPolicy):  # no reader of the run has it
        def met(self, memory, x, now):
            return now.best is not None and x >= 2 * now.best

        def sentence(self, numbers):
            return "the value is twice the best"

    path = ran(tmp_path / "run", stop=Patience(9) | Doubled())
    _, out, _ = stopctl("show", path)
    assert "run  stopped: the value is twice the best" in out
    assert json.loads((path / "journal.jsonl").read_text().splitlines()[-3])["stop"] == {
        "reason": "custom",
        "text": "the value is twice the best",
    }
