"""Hugging Face's Trainer, stopped, saved and resumed: with the bits of a run that nobody has disturbed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stopctl import Minimize, MismatchError, NotARunError, Patience, ReportError, SettingError

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed")
train = pytest.importorskip("stopctl_torch.transformers").train

HERE, PAGE = Path(__file__).parent, Path(__file__).parents[2] / "docs" / "transformers.md"


def course(program: Path, root: Path, starts: list[tuple[str, int, Any]], *arguments: str) -> Any:
    """How each start of the program ended: directory, seed, kill; and what it wrote to its errors."""
    told = [{"directory": str(root / name), "seed": seed, "kill": kill} for name, seed, kill in starts]
    command = [sys.executable, HERE / "trainer_course.py", program, json.dumps(told), *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    env.pop("STOPCTL_QUIET", None)
    done = subprocess.run(
        list(map(str, command)), cwd=root, env=env, capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.timeout(900)  # five starts of a program that imports much
def test_the_program_of_the_page_killed_twice_ends_as_undisturbed_and_again_trains_nothing(tmp_path):
    (text,) = blocks("py")
    assert text.count("\n") <= 30
    program = tmp_path / "program.py"
    program.write_text(text)
    starts = [("straight", 0, None), ("killed", 0, ["save", 7]), ("killed", 1, ["step", 18])]
    starts += [("killed", 2, None), ("killed", 3, None)]
    (straight, *killed, ended, again), told = course(program, tmp_path, starts)
    assert killed == [None, None]  # the first inside the Trainer's own save
    assert ended.pop("trained") < straight.pop("trained") == straight["steps"]
    assert ended == straight
    assert (again["trained"], again["steps"], again["model"]) == (0, straight["steps"], straight["model"])
    lines = [line.partition(": ")[2] for line in told.splitlines() if line.startswith("stopctl: ")]
    shown = [line.partition(": ")[2] for line in blocks("text")[0].splitlines()]
    assert [re.sub(r"[\d.]+", "#", line) for line in lines[4:6]] == [
        re.sub(r"[\d.]+", "#", line) for line in shown
    ]
    assert "finished before: stopped" in lines[-1]
    assert not [line for line in told.splitlines() if "Warning" in line]


CASES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "epochs": ({}, ["step", 10], ["save", 3]),
    "plateau": (
        {
            "arguments": {
                "lr_scheduler_type": "reduce_lr_on_plateau",
                "lr_scheduler_kwargs": {"patience": 0, "factor": 0.5, "threshold": 0.5},
                "metric_for_best_model": "eval_loss",
                "gradient_accumulation_steps": 2,
                "eval_strategy": "steps",
                "eval_steps": 3,
            }
        },
        ["step", 5],
        ["save", 3],
    ),
    "inside": ({"every": 3}, ["step", 11], ["save", 2]),
    "lora": ({"lora": True, "best": True}, ["step", 10], ["save", 3]),
    "steps": ({"best": True, "arguments": {"max_steps": 17}}, ["step", 8], ["step", 15]),
    "stopped": (
        {"patience": 1, "arguments": {"eval_strategy": "steps", "eval_steps": 3}},
        ["step", 4],
        ["save", 2],
    ),
    "live": ({"mode": "live", "best": True}, ["step", 10], ["step", 18]),
    "live-inside": ({"mode": "live", "every": 3}, ["step", 11], ["step", 17]),
    "live-lora": (
        {"mode": "live", "lora": True, "arguments": {"eval_strategy": "steps", "eval_steps": 3}},
        ["step", 10],
        ["step", 18],
    ),
    "live-accumulated": (
        {"mode": "live", "every": 1, "arguments": {"gradient_accumulation_steps": 3}},
        ["step", 4],
        ["step", 7],
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_killed_twice_it_ends_as_undisturbed(name, tmp_path):
    case, first, second = CASES[name]
    if case.get("lora"):
        pytest.importorskip("peft")
    starts = [("straight", 0, None), ("killed", 0, first), ("killed", 1, second), ("killed", 2, None)]
    ends, _ = course(HERE / "trainer_program.py", tmp_path, starts, json.dumps(case))
    straight, one, two, ended = ends
    assert (one, two) == (None, None)
    assert ended.pop("trained") < straight.pop("trained")
    assert ended == straight


class Net(torch.nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, width)

    def forward(self, x, labels=None):
        y = self.layer(x).sum(-1)
        return {"loss": ((y - labels) ** 2).mean(), "logits": y}


ROWS = [{"x": torch.tensor([i / 8, 1.0]), "labels": torch.tensor(float(i % 3))} for i in range(8)]


def trainer(
    where: Path, net: Any = None, *, evaluated: Any = ROWS, callbacks: Any = None, **arguments: Any
) -> Any:
    given = {"num_train_epochs": 2, "eval_strategy": "epoch", "report_to": [], "use_cpu": True, **arguments}
    given |= {"disable_tqdm": True, "dataloader_pin_memory": False}
    args = transformers.TrainingArguments(str(where / "out"), **given)
    return transformers.Trainer(
        net or Net(), args, train_dataset=ROWS, eval_dataset=evaluated, callbacks=callbacks
    )


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no evaluation": ({"eval_strategy": "no"}, "folder", r"eval_strategy='no'.*write eval_strategy='epoch'"),
    "weights alone": ({"save_only_model": True}, "folder", r"save_only_model=True.*leave it out"),
    "data anew": ({"ignore_data_skip": True}, "folder", r"ignore_data_skip=True.*leave it out"),
    "batch size": ({"auto_find_batch_size": True}, "folder", "auto_find_batch_size=True"),
    "another stop": (
        {"callbacks": [transformers.EarlyStoppingCallback()]},
        "folder",
        r"EarlyStoppingCallback.*write stop=Patience\(3\)",
    ),
    "datasets": ({"evaluated": {"a": ROWS, "b": ROWS}}, "live", "write mode='folder'"),
    "plateau": (
        {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "loss"},
        "live",
        r"ReduceLROnPlateau.*write mode='folder'",
    ),
    "another stop of one's own": (
        {"callbacks": [type("Mine", (transformers.EarlyStoppingCallback,), {})()]},
        "live",
        "EarlyStoppingCallback",
    ),
    "mode": ({}, "files", "write 'folder' or 'live'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_exact_is_refused_by_name_and_nothing_is_trained(name, tmp_path):
    given, mode, text = REFUSED[name]
    host = trainer(tmp_path, **given)
    with pytest.raises(SettingError, match=text):
        train(host, tmp_path / "run", mode=mode)
    assert host.state.global_step == 0
    callbacks = [type(each).__name__ for each in host.callback_handler.callbacks]
    assert "_Bridge" not in callbacks
    assert host.args.save_strategy == "steps"  # as it was


@pytest.mark.parametrize("mode", ["folder", "live"])
def test_another_model_another_mode_and_another_goal_are_refused(mode, tmp_path):
    output = train(trainer(tmp_path), tmp_path / "run", mode=mode, stop=Patience(5))
    assert output.global_step == 2
    for wrong, text in (
        ({"net": Net(5)}, r"model/layer.weight: saved torch.float32 \(3, 2\), given torch.float32 \(5, 2\)"),
        ({"net": torch.nn.Sequential(Net())}, r"model/0.layer.weight: saved nothing"),
    ):
        with pytest.raises(MismatchError, match=text):
            train(trainer(tmp_path, **wrong), tmp_path / "run", mode=mode)
    other = "live" if mode == "folder" else "folder"
    with pytest.raises(MismatchError, match=f"is of mode='{mode}', not of mode='{other}'"):
        train(trainer(tmp_path), tmp_path / "run", mode=other)


def test_a_directory_that_is_no_run_and_a_metric_that_is_not_there_are_told(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(NotARunError):
        train(trainer(tmp_path), tmp_path / "full")
    with pytest.raises(ReportError, match="eval_f1"):
        train(trainer(tmp_path), tmp_path / "run", goal=Minimize("eval_f1"))


def test_the_goal_is_that_of_the_arguments_and_every_dataset_is_reported(tmp_path, caplog):
    host = trainer(tmp_path, evaluated={"a": ROWS, "b": ROWS[:3]}, metric_for_best_model="b_loss")
    assert train(host, tmp_path / "run", best=True).global_step == 2
    journal = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    (_, reported) = [line for line in journal if line["event"] == "report"]
    assert reported["metrics"].keys() == {"eval_a_loss", "eval_b_loss"}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["goal"]["metric"] == "eval_b_loss"
    assert not list((tmp_path / "out").glob("checkpoint-*"))
    longer = trainer(
        tmp_path,
        evaluated={"a": ROWS, "b": ROWS[:3]},
        metric_for_best_model="b_loss",
        seed=7,
        num_train_epochs=3,
    )
    assert train(longer, tmp_path / "run").global_step == 3
    assert "num_train_epochs 2 before, 3 now; seed 42 before, 7 now" in caplog.text


@pytest.mark.parametrize("mode", ["folder", "live"])
def test_what_is_given_otherwise_is_told_and_refused_where_the_place_is_lost(mode, tmp_path, caplog):
    rules = {"mode": mode, "stop": None}
    train(trainer(tmp_path, per_device_train_batch_size=4), tmp_path / "run", **rules)
    given: dict[str, Any] = {"per_device_train_batch_size": 4, "num_train_epochs": 3}
    longer = trainer(
        tmp_path, **given, learning_rate=1e-3, lr_scheduler_type="cosine", eval_strategy="steps", eval_steps=2
    )
    train(longer, tmp_path / "run", **rules)
    assert "learning_rate 5e-05 before, 0.001 now: what was saved goes on" in caplog.text
    assert (
        "num_train_epochs 2 before, 3 now; eval_strategy epoch before, steps now; eval_steps" in caplog.text
    )
    assert "lr_scheduler_type linear before, cosine now: it ends otherwise" in caplog.text
    assert "the model is not what was saved" not in caplog.text
    caplog.clear()
    given["num_train_epochs"] = 9
    for wrong, text in (
        (
            {"per_device_train_batch_size": 2},
            r"has 4 steps now, .* in epoch 2 after step 6, but 3 epochs are",
        ),
        ({"max_steps": 20}, r"counts epochs, and has completed 3; with max_steps.*give whole epochs"),
        ({"optim": "sgd"}, "optimizer: saved from AdamW, given SGD"),
    ):
        with pytest.raises(MismatchError, match=text):
            train(trainer(tmp_path, **{**given, **wrong}), tmp_path / "run", **rules)


@pytest.mark.parametrize("mode", ["folder", "live"])
def test_a_layer_that_is_another_one_is_told_once(mode, tmp_path, caplog):
    for epochs, dropout in ((1, 0.1), (3, 0.1), (6, 0.25)):
        host = trainer(tmp_path, num_train_epochs=epochs)
        host.model.drop = torch.nn.Dropout(dropout)
        assert "the model is not what was saved" not in caplog.text
        train(host, tmp_path / "run", mode=mode, stop=None)
    assert caplog.text.count("the model is not what was saved") == 1
    assert "Dropout(p=0.1, inplace=False) when saved, Dropout(p=0.25, inplace=False) now" in caplog.text


@pytest.mark.parametrize("mode", ["folder", "live"])
def test_an_evaluation_without_a_number_is_an_error_and_an_array_is_none(mode, tmp_path):
    host = trainer(tmp_path, dataloader_drop_last=True, per_device_eval_batch_size=20)
    with pytest.raises(ReportError, match="gave no number to report: give its rows labels"):
        train(host, tmp_path / "run", mode=mode)
    if mode == "live":
        host = trainer(tmp_path)
        host.compute_metrics = lambda _: {"each": torch.arange(2).numpy()}
        assert train(host, tmp_path / "arrays", mode=mode).global_step == 2


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from ROWS


@pytest.mark.parametrize("steps", [3, 6])
def test_a_later_pass_of_a_dataset_without_a_length_is_told_when_it_is_resumed(steps, tmp_path, caplog):
    class Broken(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == steps:
                raise KeyboardInterrupt

    given = {"max_steps": 8, "eval_strategy": "steps", "eval_steps": 1, "per_device_train_batch_size": 2}

    def host(*callbacks: Any) -> Any:
        made = trainer(tmp_path, callbacks=[*callbacks], **given)
        made.train_dataset = Stream()
        return made

    with pytest.raises(KeyboardInterrupt):
        train(host(Broken()), tmp_path / "run", mode="live", stop=None)
    train(host(), tmp_path / "run", mode="live", stop=None)
    assert ("begins a later pass of it anew" in caplog.text) is (steps == 6)
