"""stopctl_torch.ignite.attach with real engines: broken off anywhere, a training ends as if it had not been."""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from conformance.program import assert_same_bits, play, programs
from stopctl import (
    After,
    Every,
    Minimize,
    MismatchError,
    NotARunError,
    OrderError,
    Preempted,
    ReportError,
    SettingError,
)

torch = pytest.importorskip("torch")
engine = pytest.importorskip("ignite.engine", reason="pytorch-ignite is not installed")
metrics = pytest.importorskip("ignite.metrics")

from stopctl_torch import ResumableLoader  # noqa: E402
from stopctl_torch.ignite import attach  # noqa: E402

data = torch.utils.data
Events = engine.Events
X = torch.randn(28, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True).tanh()
BATCHES = 7


class Broken(Exception):
    """The process ends here."""


class Training:
    """A program that begins from nothing, with a seed of its own, and may end after so many iterations."""

    def __init__(self, directory: Path, kind: str = "plain", *, seed: int = 1, die: int = 0, **given: Any):
        torch.manual_seed(seed)
        random.seed(seed)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Dropout(0.2), torch.nn.Linear(6, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), 0.01)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.7)
        loader: Any = data.DataLoader(data.TensorDataset(X, Y), batch_size=4, shuffle=True)
        self.loader = ResumableLoader(loader) if kind == "resumable" else loader
        kind_of = engine.DeterministicEngine if kind == "deterministic" else engine.Engine
        self.die, self.epochs = die, []
        self.trainer, self.evaluator = kind_of(self.step), engine.Engine(self.predict)
        metrics.Loss(torch.nn.functional.mse_loss).attach(self.evaluator, "loss")
        extra = {"loader": self.loader} if kind == "resumable" else None
        objects = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        rules = {"goal": Minimize("loss"), "stop": None, "durability": "process", "quiet": True}
        given = {"extra": extra, **objects, **rules, **given}
        self.run = attach(self.trainer, self.evaluator, directory, **given)
        self.trainer.add_event_handler(
            Events.EPOCH_STARTED, lambda: self.epochs.append(self.trainer.state.epoch)
        )
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.validate)

    def step(self, trainer: Any, batch: Any) -> None:
        if trainer.state.iteration == self.die:
            raise Broken
        self.model.train()
        self.optimizer.zero_grad()
        noise = random.random() * 0.01
        (self.model(batch[0]) - batch[1] + noise).square().mean().backward()
        self.optimizer.step()

    def predict(self, _: Any, batch: Any) -> Any:
        self.model.eval()
        with torch.no_grad():
            return self.model(batch[0]), batch[1]

    def validate(self, _: Any) -> None:
        self.evaluator.run([(X, Y)])
        self.scheduler.step()

    def train(self, epochs: int = 5, **given: Any) -> Training:
        with self.run:
            torch.rand(random.randrange(9))  # whatever is drawn before it begins
            self.trainer.run(self.loader, max_epochs=epochs, **given)
        return self

    def state(self) -> list[Any]:
        tensors = [*self.model.state_dict().values(), torch.get_rng_state()]
        tensors += [each["exp_avg"] for each in self.optimizer.state_dict()["state"].values()]
        counters = (self.run.progress.epoch, self.run.progress.step, self.run.progress.best)
        return [*(each.tolist() for each in tensors), self.scheduler.last_epoch, random.getstate(), counters]


@pytest.mark.parametrize("kind", ["plain", "deterministic", "resumable"])
def test_broken_off_twice_it_ends_with_the_same_bits(tmp_path, kind):
    given = {"save": Every(steps=2)} if kind == "resumable" else {}
    straight = Training(tmp_path / "straight", kind, **given).train().state()
    for seed, die in ((1, 10), (2, 26)):
        with pytest.raises(Broken):
            Training(tmp_path / "broken", kind, seed=seed, die=die, **given).train()
    last = Training(tmp_path / "broken", kind, seed=3, **given).train()
    assert last.run.resumed is not None
    assert last.run.resumed.step == (24 if kind == "resumable" else 21)
    assert last.epochs == [4, 5]
    assert last.state() == straight


def test_the_program_of_the_page_killed_twice_ends_with_the_same_bits(tmp_path):
    (program,) = programs("ignite")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    printed = play(straight, program)
    play(killed, program, "4")
    play(killed, program.replace("torch.manual_seed(0)", "torch.manual_seed(1)"), "save-3")
    told = play(killed, program.replace("torch.manual_seed(0)", "torch.manual_seed(2)"))
    assert "runs/ignite: resumed from epoch-0005-" in told
    assert told.splitlines()[0] == printed.splitlines()[0]
    assert_same_bits(straight / "runs/ignite", killed / "runs/ignite")


def test_a_run_that_a_rule_has_stopped_trains_nothing_and_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, "stopctl")
    rules = {"stop": After(epochs=2)}
    assert Training(tmp_path, **rules).train().epochs == [1, 2]
    again = Training(tmp_path, **rules).train()
    assert again.epochs == []
    assert again.run.stopped is not None
    assert "finished before: stopped at epoch 2 of 5, step 14" in caplog.text


def test_all_epochs_done_trains_nothing_and_more_go_on(tmp_path):
    assert Training(tmp_path).train(2).epochs == [1, 2]
    assert Training(tmp_path).train(2).epochs == []
    again = Training(tmp_path)
    with again.run:
        again.trainer.run(again.loader, max_epochs=3)
        again.trainer.run(again.loader, max_epochs=4)
    assert again.epochs == [3, 4]


def test_epochs_of_another_length_than_before_are_told(tmp_path, caplog):
    Training(tmp_path).train(1)
    Training(tmp_path).train(2)
    assert "it ends otherwise" not in caplog.text
    other = Training(tmp_path)
    other.loader = data.DataLoader(data.TensorDataset(X, Y), batch_size=2, shuffle=True)
    before, now = len(X) // 4, len(X) // 2
    assert other.train(3).epochs == [3]
    assert caplog.text.count(f"epochs of {before} iterations before, of {now} now: it ends otherwise") == 1


@pytest.mark.parametrize(
    ("kind", "given", "write"),
    [
        ("schedule", None, 'CosineAnnealingScheduler is not saved, and a resumed training begins it anew: write extra='),
        ("schedule", "extra", ""),
        ("torch's", None, "LRScheduler is not saved"),
        ("torch's", "scheduler", ""),
        ("patience", None, "EarlyStopping is not saved, and a resumed training begins it anew: write stop=Patience("),
        ("patience", "extra", ""),
    ],
)  # fmt: skip
def test_handlers_that_would_begin_anew_are_told_of_once(tmp_path, caplog, kind, given, write):
    handlers = pytest.importorskip("ignite.handlers")

    def start(epochs: int) -> None:
        net = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.7)
        trainer = engine.Engine(lambda *_: optimizer.step())
        evaluator = engine.Engine(lambda _, batch: (net(batch[0]), batch[1]))
        metrics.Loss(torch.nn.functional.mse_loss).attach(evaluator, "loss")
        loader = data.DataLoader(data.TensorDataset(X, Y), batch_size=4)
        where, event = trainer, Events.ITERATION_STARTED(every=1)
        if kind == "schedule":
            thing = handlers.CosineAnnealingScheduler(optimizer, "lr", 0.1, 0.01, 20)
        elif kind == "patience":
            thing, where, event = (
                handlers.EarlyStopping(9, lambda _: 1.0, trainer),
                evaluator,
                Events.COMPLETED,
            )
        else:
            thing = handlers.LRScheduler(scheduler)
        saved = {"extra": {"thing": thing}, "scheduler": scheduler}
        more = {name: saved[name] for name in saved if name == given}
        rules = {"goal": Minimize("loss"), "stop": None, **more}
        with attach(trainer, evaluator, tmp_path, model=net, optimizer=optimizer, **rules):
            where.add_event_handler(event, thing)
            trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run(loader))
            trainer.run(loader, max_epochs=epochs)

    start(1)
    start(2)
    assert caplog.text.count("is not saved") == 2 * bool(write), "at each start"
    assert write in caplog.text


def test_handlers_that_are_added_later_still_come_before_the_report(tmp_path):
    training, reported = Training(tmp_path), []
    with training.run as run:
        end = Events.EPOCH_COMPLETED
        training.trainer.add_event_handler(end, lambda: reported.append(run.progress.epoch))
        training.trainer.run(training.loader, max_epochs=3)
    assert reported == [0, 1, 2]


def test_sigterm_saves_at_the_next_place_and_ends_the_process(tmp_path):
    for kind, step in (("plain", 14), ("resumable", 10)):
        training = Training(tmp_path / kind, kind, save=None)
        here = Events.ITERATION_COMPLETED(once=10)
        training.trainer.add_event_handler(here, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted):
            training.train()
        assert [info.step for info in training.run.checkpoints] == [step]


def test_an_epoch_without_an_evaluation_is_a_pass_without_a_report(tmp_path, caplog):
    training = Training(tmp_path)
    training.trainer.remove_event_handler(training.validate, Events.EPOCH_COMPLETED)
    training.trainer.add_event_handler(Events.EPOCH_COMPLETED(every=2), training.validate)
    training.train(4)
    assert (training.run.progress.epoch, training.run.progress.reports) == (4, 2)
    assert [text for text in caplog.messages if "has not run at the end of epoch 1" in text]


WRONG = {
    "an iterator": (
        lambda t: {"data": itertools.repeat((X, Y)), "epoch_length": 3},
        "nobody can begin a repeat again",
    ),
    "part of a loader": (
        lambda t: {"data": t.loader, "epoch_length": 5},
        "epoch_length=5 ends inside the data",
    ),
    "iterations": (lambda t: {"data": t.loader, "max_epochs": None, "max_iters": 9}, "max_epochs=..."),
    "no position": (lambda t: {"data": ResumableLoader(t.loader)}, "the position of the data is not saved"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_could_not_go_on_exactly_is_refused_before_it_trains(tmp_path, wrong):
    given, text = WRONG[wrong]
    training = Training(tmp_path)
    with pytest.raises(SettingError, match=text), training.run:
        training.trainer.run(**{"max_epochs": 2, **given(training)})
    assert training.epochs == []


def test_errors_are_ours(tmp_path):
    with pytest.raises(ReportError, match=r"no 'val_loss'.*it has: loss"):
        Training(tmp_path / "metric", goal=Minimize("val_loss")).train()
    with pytest.raises(OrderError, match="the run is not open"):
        Training(tmp_path / "closed").trainer.run([(X, Y)], max_epochs=1)
    with pytest.raises(SettingError, match="that name is the trainer's"):
        Training(tmp_path / "name", extra={"engine": torch.zeros(1)})
    Training(tmp_path / "other").train(1)
    with pytest.raises(MismatchError, match="model"):
        Training(tmp_path / "other", model=torch.nn.Linear(3, 1), optimizer=None, scheduler=None).train()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("of somebody")
    with pytest.raises(NotARunError, match="thesis.tex"):
        Training(tmp_path / "foreign").train(1)
